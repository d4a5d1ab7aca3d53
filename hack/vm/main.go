// Command vm runs Go packages' tests as root in a virtual machine with a kernel of Debian's, without KVM and without
// touching this machine: what is downloaded stays in the user's cache directory.
//
//	vm --kernel=6.12 ./internal/dataplane ./internal/agent/kerneltest
//
// docs/compatibility.md is written from its runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "vm: %v\n", err)
		stop()
		os.Exit(1)
	}
}

// options of one run.
type options struct {
	arch    string
	kernels []string
	page    string
	part    bool
	tags    string
	run     string
	skip    string
	plugins []string
	starts  []string
	cpus    int
	memory  int
	timeout time.Duration
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:           "vm --kernel VERSION PACKAGE...",
		Short:         "Run the tests of Go packages on other kernels",
		Args:          cobra.MinimumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, packages []string) error { return o.main(cmd.Context(), packages) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.arch, "arch", "amd64", "of the machine: amd64 or arm64")
	flags.StringSliceVar(&o.kernels, "kernel", []string{"6.12"}, "versions, as far as they matter: 6.12 is the newest of these that is cached, or else that Debian has; newest is the newest of all")
	flags.StringVar(&o.page, "write", "", "page whose table gets the results, unless --run is given without --part")
	flags.BoolVar(&o.part, "part", false, "write the results of a part of the tests too, which --run gives; the row says that they are a part")
	flags.StringVar(&o.tags, "tags", "", "build tags of the tests")
	flags.StringVar(&o.run, "run", "", "tests to run, as go test has it")
	flags.StringVar(&o.skip, "skip", "", "tests to leave out, as go test has it")
	flags.StringSliceVar(&o.plugins, "cni-plugin", nil, "static programs of this machine that tests find in /opt/cni/bin")
	flags.StringSliceVar(&o.starts, "start", nil, "static programs of this machine that must start there and print their version")
	flags.IntVar(&o.cpus, "cpus", 2, "of the machine")
	flags.IntVar(&o.memory, "memory", 1536, "of the machine, in MiB")
	flags.DurationVar(&o.timeout, "timeout", time.Hour, "for each kernel")
	return cmd
}

func (o *options) main(ctx context.Context, packages []string) error {
	work, err := os.MkdirTemp("", "kidoban-vm-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	arch, err := findArch(o.arch)
	if err != nil {
		return err
	}
	programs, err := buildTests(ctx, arch, work, o.tags, packages)
	if err != nil {
		return err
	}
	for i := range programs {
		programs[i].Args = o.testArgs()
	}
	programs = append(starts(o.starts), programs...)
	store, err := openStore(arch)
	if err != nil {
		return err
	}
	var failed error
	for _, want := range o.kernels {
		if err := o.runOn(ctx, store, want, filepath.Join(work, want), programs); err != nil {
			failed = errors.Join(failed, fmt.Errorf("on Linux %s: %w", want, err))
		}
	}
	return failed
}

func (o *options) testArgs() []string {
	args := []string{"-test.v", fmt.Sprintf("-test.timeout=%s", o.timeout)}
	if o.run != "" {
		args = append(args, "-test.run="+o.run)
	}
	if o.skip != "" {
		args = append(args, "-test.skip="+o.skip)
	}
	return args
}

// boots is how often a machine is started that does not come up.
const boots = 3

func (o *options) runOn(ctx context.Context, store store, want, work string, programs []program) error {
	kernel, err := store.find(ctx, want)
	if err != nil {
		return err
	}
	fmt.Printf("==> Linux %s\n", kernel.release)
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	m := machine{arch: store.arch, kernel: kernel, initrd: filepath.Join(work, "initrd"), cpus: o.cpus, memory: o.memory}
	if err := writeInitrd(ctx, store, m.initrd, kernel, programs, o.plugins); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.timeout, fmt.Errorf("not done within %v", o.timeout))
	defer cancel()
	r := &result{}
	var took time.Duration
	// Where several threads emulate, a kernel that patches itself may trip while it boots ("Oops: int3").
	for boot := 0; boot < boots && !r.cameUp(); boot++ {
		start := time.Now()
		if r, err = m.run(ctx, os.Stdout); err != nil {
			return err
		}
		took = time.Since(start)
	}
	fmt.Printf("==> Linux %s: %d passed, %d failed, %d skipped, in %v\n",
		kernel.release, len(r.passed), len(r.failed), len(r.skipped), took.Round(time.Second))
	if err := r.err(len(programs)); err != nil || o.page == "" || o.run != "" && !o.part {
		return err
	}
	return updatePage(o.page, kernel.release, r, o.part, took)
}
