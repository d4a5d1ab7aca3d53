//go:build hubble

package hubble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const module = "github.com/cilium/cilium"

// commands are the directories of modules that pin a hubble command.
var commands = map[string]string{"newest": "../hubbleenv", "two releases back": "."}

// build returns the command that a module pins, from the user's cache directory. It builds it where it is missing.
func build(dir string) (string, error) {
	version, err := exec.Command("go", "-C", dir, "list", "-m", "-f={{.Version}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("version of %s in %s: %w", module, dir, err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "kidoban", "hubble", strings.TrimSpace(string(version)), "hubble")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	c := exec.Command("go", "-C", dir, "build", "-trimpath", "-ldflags=-s -w", "-o", temporary, module+"/hubble")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", path, err, out)
	}
	return path, os.Rename(temporary, path)
}

// forEachCommand runs a test with each command.
func forEachCommand(t *testing.T, test func(t *testing.T, path string)) {
	for name, dir := range commands {
		t.Run(name, func(t *testing.T) {
			path, err := build(dir)
			if err != nil {
				t.Fatal(err)
			}
			test(t, path)
		})
	}
}

// output is what a command prints while it runs.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// command is a hubble command that talks to a server.
type command struct {
	path   string
	server *server
}

// start starts the command; the test's end ends it.
func (c command) start(t *testing.T, args ...string) (stdout, stderr *output, wait func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, c.path, append(args,
		"--server="+c.server.address, "--tls", "--tls-server-name=observer", "--tls-ca-cert-files="+c.server.ca,
		"--basic-auth-username=kidoban", "--basic-auth-password="+c.server.token)...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	stdout, stderr = &output{}, &output{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return stdout, stderr, sync.OnceValue(cmd.Wait)
}

// run returns what the command prints. Its failure is the test's.
func (c command) run(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, wait := c.start(t, args...)
	if err := wait(); err != nil {
		t.Fatalf("hubble %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout.String()
}

// fail returns what the command prints when it fails.
func (c command) fail(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, wait := c.start(t, args...)
	var exit *exec.ExitError
	if err := wait(); !errors.As(err, &exit) || exit.ExitCode() < 0 {
		t.Fatalf("hubble %s: %v; it must fail\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stderr.String()
}

// eventually polls until a condition is met.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
