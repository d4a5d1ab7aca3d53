package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const cgroupDir = "/sys/fs/cgroup"

// cgroup is the path of the node's cgroup below each hierarchy's root. The
// kubelet makes those of its pods there.
func (n node) cgroup() string { return "/" + filepath.Join(n.c.id(), n.name()) }

// A hierarchy of cgroups is mounted at dir: the one of version 2, of version 1
// those of every controller, or a mixture of both.
type hierarchy struct {
	dir string
	v2  bool
}

func hierarchies() ([]hierarchy, error) {
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		here := m.Mountpoint == cgroupDir || filepath.Dir(m.Mountpoint) == cgroupDir
		return !here || m.FSType != "cgroup" && m.FSType != "cgroup2", false
	})
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for _, m := range mounts {
		all = append(all, hierarchy{dir: m.Mountpoint, v2: m.FSType == "cgroup2"})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted on or below %s", cgroupDir)
	}
	return all, nil
}

// makeCgroup makes the node's cgroup in every hierarchy.
func (n node) makeCgroup() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := h.dir
		for _, elem := range strings.Split(strings.Trim(n.cgroup(), "/"), "/") {
			parent := dir
			dir = filepath.Join(dir, elem)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if h.v2 {
				err = delegateControllers(parent)
			} else if filepath.Base(h.dir) == "cpuset" {
				err = copyFiles(parent, dir, "cpuset.cpus", "cpuset.mems")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// delegateControllers lets the children of a version 2 cgroup use every controller that it has.
func delegateControllers(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(b)) {
		control := filepath.Join(dir, "cgroup.subtree_control")
		if err := os.WriteFile(control, []byte("+"+controller), 0o644); err != nil {
			return fmt.Errorf("hand on the %s controller: %w", controller, err)
		}
	}
	return nil
}

// copyFiles sets what version 1 leaves empty in a new cpuset, which then takes no process.
func copyFiles(from, to string, names ...string) error {
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes a cgroup with those in it from each hierarchy: the cluster's, or
// a node's. Their processes must have been killed; the kernel takes a moment to let go of
// the cgroups after that.
func removeCgroups(path string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		dir := filepath.Join(h.dir, path)
		deadline := time.Now().Add(10 * time.Second)
		for e := removeTree(dir); e != nil; e = removeTree(dir) {
			if time.Now().After(deadline) {
				err = errors.Join(err, e)
				break
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return err
}

// removeTree removes a cgroup and those in it, the innermost first. Their files
// cannot be removed and go with them.
func removeTree(dir string) error {
	var dirs []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		if e := unix.Rmdir(d); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", d, e))
		}
	}
	return err
}
