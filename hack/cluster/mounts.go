package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// kernelSettings are the global settings that a kubelet insists on. The node
// shows files with these values in their place: the machine's stay as they are.
var kernelSettings = map[string]string{
	"vm/overcommit_memory":      "1",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// makeMounts gives the node its own /proc, /sys, /run and /var. The rest is the
// machine's file system, and nothing that is mounted here is seen outside.
func (n node) makeMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	state, err := cloneTree(n.c.dir(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(state)
	cgroups, err := cloneTree(cgroupDir, unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	defer unix.Close(cgroups)
	if err := detachInherited(); err != nil {
		return err
	}
	if err := n.makeVar(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, target, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""}, // shows /sys/class/net of the network namespace
		{"tmpfs", "/run", "mode=755"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	if err := attachTree(cgroups, cgroupDir); err != nil {
		return err
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=700"); err != nil {
		return fmt.Errorf("mount bpf on /sys/fs/bpf: %w", err)
	}
	for _, dir := range []string{"/run/lock", "/run/netns", "/run/containerd"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// Paths below the cluster's directory are the same inside as outside.
	if err := os.MkdirAll(n.c.dir(), 0o755); err != nil {
		return err
	}
	if err := attachTree(state, n.c.dir()); err != nil {
		return err
	}
	if err := n.coverKernelSettings(); err != nil {
		return err
	}
	// Pods may ask for mount propagation, which wants shared mounts.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// cloneTree takes hold of a directory, as a mount that is attached nowhere, to
// attach it again when its path has been covered.
func cloneTree(path string, flags uint) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|flags)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of %s: %w", path, err)
	}
	return fd, nil
}

func attachTree(fd int, path string) error {
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

// detachInherited lets go of mounts that the node has from the machine but must
// not keep: a copy of a network namespace's mount keeps that namespace in being
// after it was deleted outside, and the machine's bpffs is none of the node's.
func detachInherited() error {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		keep := m.FSType != "nsfs" && m.FSType != "bpf" && !strings.HasPrefix(m.Mountpoint, "/run/")
		return keep, false
	})
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		// EINVAL: went together with what it was mounted on.
		if err := unix.Unmount(m.Mountpoint, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("detach %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// makeVar mounts a directory of the node on /var, with all that is written there:
// the roots of containerd and the kubelet, logs, the CNI plugins' leases.
func (n node) makeVar() error {
	dir := n.path("var")
	for _, d := range []string{"lib", "log", "cache"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o777|os.ModeSticky); err != nil {
		return err
	}
	for _, link := range []string{"run", "lock"} {
		target := map[string]string{"run": "/run", "lock": "/run/lock"}[link]
		// A node that restarts has them.
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := unix.Mount(dir, "/var", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s on /var: %w", dir, err)
	}
	return nil
}

func (n node) coverKernelSettings() error {
	for name, value := range kernelSettings {
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue // not in this kernel: the kubelet does not find it either
		}
		file := n.path("sysctl", name)
		if err := writeFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", target, err)
		}
	}
	return nil
}
