package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// nft is the one program of Debian's that tests call. It is linked dynamically.
const nft = "nft"

// writeInitrd packs the whole file system of the machine: our init, which is modprobe too, the kernel's modules, the tools
// with their libraries, CNI plugins, and the programs.
func writeInitrd(ctx context.Context, s store, file string, k kernel, programs []program, plugins []string) (err error) {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buffered := bufio.NewWriterSize(f, 1<<20)
	a := &archive{w: cpio.NewWriter(buffered), dirs: map[string]bool{}}
	for _, dir := range []string{"dev", "proc", "sys", "run", "tmp", "root", "etc"} {
		a.dir(dir)
	}
	if err := a.addInit(ctx, s.arch, file+".init"); err != nil {
		return err
	}
	if err := a.addModules(k); err != nil {
		return err
	}
	if s.arch.name == runtime.GOARCH {
		err = a.addTool(ctx, nft)
	} else {
		err = a.addForeignTool(ctx, s)
	}
	if err != nil {
		return err
	}
	for _, plugin := range plugins {
		if err := a.file("opt/cni/bin/"+filepath.Base(plugin), plugin); err != nil {
			return err
		}
	}
	if err := a.addPrograms(programs); err != nil {
		return err
	}
	return errors.Join(a.err, a.w.Close(), buffered.Flush())
}

// archive writes a cpio archive. It keeps its first error.
type archive struct {
	w    *cpio.Writer
	dirs map[string]bool
	err  error
}

func (a *archive) add(name string, mode cpio.FileMode, content []byte) {
	if dir := path.Dir(name); dir != "." {
		a.dir(dir)
	}
	a.header(&cpio.Header{Name: name, Mode: mode, Size: int64(len(content))}, content)
}

func (a *archive) dir(name string) {
	if parent := path.Dir(name); parent != "." {
		a.dir(parent)
	}
	if !a.dirs[name] {
		a.dirs[name] = true
		a.header(&cpio.Header{Name: name, Mode: cpio.TypeDir | 0o755}, nil)
	}
}

func (a *archive) link(name, target string) {
	a.dir(path.Dir(name))
	a.header(&cpio.Header{Name: name, Mode: cpio.TypeSymlink | 0o777, Size: int64(len(target))}, []byte(target))
}

func (a *archive) header(h *cpio.Header, content []byte) {
	if a.err == nil {
		a.err = a.w.WriteHeader(h)
	}
	if a.err == nil && content != nil {
		_, a.err = a.w.Write(content)
	}
}

func (a *archive) file(name, source string) error {
	content, err := os.ReadFile(source)
	if err == nil {
		a.add(name, cpio.TypeReg|0o755, content)
	}
	return err
}

func (a *archive) addInit(ctx context.Context, arch arch, binary string) error {
	if err := buildInit(ctx, arch, binary); err != nil {
		return err
	}
	a.link("sbin/modprobe", "/init") // where the kernel looks for it
	return a.file("init", binary)
}

var library = regexp.MustCompile(`(/\S+) \(0x[0-9a-f]+\)`)

// addTool packs a program of this machine with the libraries that its loader names.
func (a *archive) addTool(ctx context.Context, name string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", program, err)
	}
	for _, m := range library.FindAllStringSubmatch(string(out), -1) {
		if err := a.file(strings.TrimPrefix(m[1], "/"), m[1]); err != nil {
			return err
		}
	}
	return a.file("bin/"+name, program)
}

func (a *archive) addPrograms(programs []program) error {
	for _, p := range programs {
		if err := a.file(strings.TrimPrefix(p.Path, "/"), p.binary); err != nil {
			return err
		}
		if p.testdata == "" {
			continue
		}
		err := filepath.WalkDir(p.testdata, func(file string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			relative, err := filepath.Rel(p.testdata, file)
			if err != nil {
				return err
			}
			return a.file(strings.TrimPrefix(p.Dir, "/")+"/testdata/"+filepath.ToSlash(relative), file)
		})
		if err != nil {
			return err
		}
	}
	list, err := json.Marshal(programs)
	if err == nil {
		a.add("etc/programs.json", cpio.TypeReg|0o644, list)
	}
	return err
}
