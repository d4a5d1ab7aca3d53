package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// machinePrograms are what a node takes from the machine, and Debian's packages of them.
var machinePrograms = []struct{ program, pkg, why string }{
	{"runc", "runc", "containerd starts containers by it"},
	{"nft", "nftables", "kube-proxy"},
	{"iptables", "iptables", "kube-proxy's iptables mode, and host ports"},
}

// installMissing installs the Debian packages of programs that are not there.
func installMissing(ctx context.Context, out io.Writer) error {
	var packages, needs []string
	for _, m := range machinePrograms {
		if _, err := exec.LookPath(m.program); err != nil {
			packages = append(packages, m.pkg)
			needs = append(needs, fmt.Sprintf("%s (%s)", m.program, m.why))
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("not found: %s; there is no apt-get here: install them", strings.Join(needs, ", "))
	}
	fmt.Fprintf(out, "installing packages: %s\n", strings.Join(packages, " "))
	install := append([]string{"install", "--yes", "--no-install-recommends"}, packages...)
	if err := aptGet(ctx, install...); err == nil {
		return nil
	}
	// Package lists may be missing or out of date.
	if err := aptGet(ctx, "update"); err != nil {
		return err
	}
	if err := aptGet(ctx, install...); err != nil {
		return fmt.Errorf("%w\ninstall by hand: %s", err, strings.Join(packages, " "))
	}
	return nil
}

func aptGet(ctx context.Context, args ...string) error {
	args = append([]string{"--option=DPkg::Lock::Timeout=300"}, args...) // another process may be installing
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if b, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("apt-get %s: %w", args[1], err), errors.New(strings.TrimSpace(string(b))))
	}
	return nil
}
