package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// A machine is emulated in whole: that needs no /dev/kvm, which test machines in clouds seldom have.
type machine struct {
	arch         arch
	kernel       kernel
	initrd       string
	cpus, memory int
}

// run boots the machine and returns when it is off. out gets its console.
func (m machine) run(ctx context.Context, out io.Writer) (*result, error) {
	report := m.initrd + ".report"
	// The kernel hands report on to init, as a variable of its environment.
	kernelArgs := fmt.Sprintf("console=%s quiet panic=-1 mitigations=off report=%s", m.arch.console, m.arch.report)
	// In a thread for each CPU the emulator may run an instruction that another CPU's kernel has just replaced, such as
	// the int3 of a static branch, and the kernel panics. On a busy machine that happens.
	cmd := exec.CommandContext(ctx, m.arch.qemu, slices.Concat(
		[]string{"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-accel", "tcg,thread=single"},
		m.arch.machine,
		[]string{"-smp", fmt.Sprint(m.cpus), "-m", fmt.Sprint(m.memory), "-kernel", m.kernel.image, "-initrd", m.initrd, "-append", kernelArgs, "-serial", "stdio"},
		m.arch.reportFlags(report),
	)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	console, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	r := &result{}
	r.read(console, out)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("QEMU: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		var e ended
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("the machine's report %q: %w", line, err)
		}
		r.ended = append(r.ended, e)
	}
	return r, nil
}

// ended is what the machine's init writes about each program.
type ended struct {
	Name    string
	Code    int
	Seconds float64
}

// result is how the programs in a machine ended.
type result struct {
	began                   bool     // a test did
	passed, failed, skipped []string // tests, but no subtests
	ended                   []ended
}

// read passes the console on line by line, and notes what tests say.
func (r *result) read(console io.Reader, out io.Writer) {
	lines := bufio.NewReader(console)
	for {
		line, err := lines.ReadString('\n')
		line = strings.TrimRight(line, "\r\n")
		if line != "" || err == nil {
			_, _ = fmt.Fprintln(out, line)
		}
		r.began = r.began || strings.Contains(line, "=== RUN ")
		// The kernel and the firmware may write before it in the same line.
		for verdict, list := range map[string]*[]string{"--- PASS: ": &r.passed, "--- FAIL: ": &r.failed, "--- SKIP: ": &r.skipped} {
			if before, rest, ok := strings.Cut(line, verdict); ok && !strings.HasPrefix(before, " ") {
				name, _, _ := strings.Cut(rest, " ")
				*list = append(*list, name)
			}
		}
		if err != nil {
			return
		}
	}
}

// cameUp reports whether the machine booted as far as the first test, or past a program that had none to run.
func (r *result) cameUp() bool { return r.began || len(r.ended) > 0 }

// err says what is wrong with the result: a test that failed or was skipped, a program that ended badly or not at all.
func (r *result) err(programs int) error {
	var err error
	if len(r.ended) != programs {
		err = fmt.Errorf("the machine went off when %d of %d programs had ended", len(r.ended), programs)
	}
	if len(r.passed) == 0 {
		err = errors.Join(err, errors.New("no test passed, of which there must be some"))
	}
	for _, e := range r.ended {
		if e.Code != 0 {
			err = errors.Join(err, fmt.Errorf("the tests of %s ended with exit code %d", e.Name, e.Code))
		}
	}
	if len(r.failed) > 0 {
		err = errors.Join(err, fmt.Errorf("failed: %s", strings.Join(r.failed, ", ")))
	}
	if len(r.skipped) > 0 {
		err = errors.Join(err, fmt.Errorf("skipped, which no test may be: %s", strings.Join(r.skipped, ", ")))
	}
	return err
}
