package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A builder builds and finds binary sets.
type builder struct {
	ctx   context.Context
	hack  string // the repo's directory hack
	cache string
	out   io.Writer // for progress
}

func newBuilder(ctx context.Context, out io.Writer) (*builder, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	hack, err := findHack(wd)
	if err != nil {
		return nil, err
	}
	cache, err := cacheRoot()
	if err != nil {
		return nil, err
	}
	return &builder{ctx: ctx, hack: hack, cache: cache, out: out}, nil
}

// ensure returns the directory of a set, and builds it first if it is not cached.
func (b *builder) ensure(set binarySet) (string, error) {
	key, err := cacheKey(b.hack, set.module, set.dirs)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.cache, set.prefix+key)
	if exists(dir) {
		return dir, nil
	}
	l, err := lockFile(b.ctx, dir+".lock", func() {
		fmt.Fprintf(b.out, "another process builds %s: waiting for it\n", set.title)
	})
	if err != nil {
		return "", err
	}
	defer l.Close()
	if exists(dir) {
		return dir, nil
	}
	return dir, b.buildInto(dir, set)
}

// buildInto builds beside dir and renames at the end: a build that is killed leaves
// nothing that looks whole, and the next one sweeps what it does leave.
func (b *builder) buildInto(dir string, set binarySet) error {
	left, err := filepath.Glob(dir + ".tmp-*")
	if err != nil {
		return err
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(b.cache, filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(tmp, "bin"), 0o755); err != nil {
		return err
	}
	version, err := requiredVersion(filepath.Join(b.hack, set.dirs[0], "go.mod"), set.module)
	if err != nil {
		return err
	}
	fmt.Fprintf(b.out, "building %s %s: a first time takes %s\n", set.title, version, set.about)
	start := time.Now()
	if err := set.build(b, version, tmp); err != nil {
		return fmt.Errorf("build %s: %w", set.title, err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	fmt.Fprintf(b.out, "built %s in %s: %s\n", set.title, time.Since(start).Round(time.Second), dir)
	return nil
}

// goBuild builds static binaries in the module hack/dir.
func (b *builder) goBuild(dir, ldflags, output string, packages ...string) error {
	return b.goCommand(dir, append([]string{"build", "-v", "-trimpath", "-ldflags=" + ldflags, "-o=" + output}, packages...))
}

// goTestBuild builds a package's tests, of any module, into one static binary.
func (b *builder) goTestBuild(dir, ldflags, output, pkg string) error {
	return b.goCommand(dir, []string{"test", "-c", "-vet=off", "-trimpath", "-ldflags=" + ldflags, "-o=" + output, pkg})
}

// goCommand runs the go command in the module hack/dir and tells every 15 seconds how far it is.
func (b *builder) goCommand(dir string, args []string) error {
	cmd := exec.CommandContext(b.ctx, "go", args...)
	cmd.Dir = filepath.Join(b.hack, dir)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGTERM) } // and its compilers
	p := &buildProgress{}
	cmd.Stderr = p
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the go command: %w", err)
	}
	done := make(chan struct{})
	var reporting sync.WaitGroup
	reporting.Go(func() { p.report(b.out, done) })
	err := cmd.Wait()
	close(done)
	reporting.Wait()
	if err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, p.messages())
	}
	return nil
}

// buildProgress reads what `go build -v` writes: the name of each package that it
// compiles, downloads, and error messages.
type buildProgress struct {
	mu       sync.Mutex
	partial  []byte
	packages int
	last     string
	other    []string
}

func (p *buildProgress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partial = append(p.partial, b...)
	end := bytes.LastIndexByte(p.partial, '\n')
	lines := bufio.NewScanner(bytes.NewReader(p.partial[:end+1]))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "go: downloading"):
			p.last = strings.TrimPrefix(line, "go: ")
		case strings.ContainsAny(line, " \t"):
			p.other = append(p.other, line)
		default:
			p.packages++
			p.last = "compiling " + line
		}
	}
	p.partial = p.partial[end+1:]
	return len(b), nil
}

func (p *buildProgress) report(out io.Writer, done <-chan struct{}) {
	start := time.Now()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			p.mu.Lock()
			fmt.Fprintf(out, "  %s: %d packages compiled, %s\n", time.Since(start).Round(time.Second), p.packages, p.last)
			p.mu.Unlock()
		}
	}
}

func (p *buildProgress) messages() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.other, "\n")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
