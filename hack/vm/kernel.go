package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// suites are the Debian suites that hold the kernels of interest: 6.1; 6.12; the newest.
var suites = []string{"bookworm", "bookworm-backports", "trixie", "trixie-backports"}

// A kernel is one of Debian's, unpacked.
type kernel struct {
	release string // as uname has it
	image   string
	modules string // its directory below lib/modules
}

// store holds what was downloaded for an architecture: kernels, each in a directory with its release as its name, and programs.
type store struct {
	dir  string
	arch arch
}

func openStore(arch arch) (store, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return store{}, err
	}
	s := store{filepath.Join(cache, "kidoban", "linux"), arch}
	return s, os.MkdirAll(s.dir, 0o755)
}

// find returns the newest kernel of a version such as 6.12, or of all for "newest". One that is there already is taken
// before Debian is asked.
func (s store) find(ctx context.Context, want string) (kernel, error) {
	if want == "newest" {
		return s.download(ctx, "")
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return kernel{}, err
	}
	var have []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), s.arch.releaseSuffix()) {
			have = append(have, e.Name())
		}
	}
	if release := newest(have, want); release != "" {
		return s.unpacked(release), nil
	}
	return s.download(ctx, want)
}

func (s store) unpacked(release string) kernel {
	return unpackedAt(filepath.Join(s.dir, release), release)
}

func unpackedAt(dir, release string) kernel {
	k := kernel{
		release: release,
		image:   filepath.Join(dir, "boot", "vmlinuz-"+release),
		modules: filepath.Join(dir, "lib", "modules", release),
	}
	if split := filepath.Join(k.modules, "vmlinuz"); exists(split) {
		k.image = split
	}
	return k
}

var packageName = regexp.MustCompile(`^linux-image-([0-9].*-cloud-(?:amd64|arm64))$`)

// lock waits for its turn: apt fails where another reads the same lists.
func (s store) lock(ctx context.Context) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (s store) download(ctx context.Context, want string) (kernel, error) {
	l, err := s.lock(ctx)
	if err != nil {
		return kernel{}, err
	}
	defer func() { _ = l.Close() }()
	a, err := s.updatedApt(ctx)
	if err != nil {
		return kernel{}, err
	}
	out, err := a.run(ctx, a.lists, "apt-cache", "pkgnames", "linux-")
	if err != nil {
		return kernel{}, err
	}
	names := strings.Fields(out)
	var releases []string
	for _, name := range names {
		if m := packageName.FindStringSubmatch(name); m != nil && strings.HasSuffix(m[1], s.arch.releaseSuffix()) {
			releases = append(releases, m[1])
		}
	}
	release := newest(releases, want)
	if release == "" {
		return kernel{}, fmt.Errorf("none in Debian's suites %s, which have %s", strings.Join(suites, ", "), strings.Join(releases, ", "))
	}
	if k := s.unpacked(release); exists(k.image) {
		return k, nil
	}
	// From 6.19 on Debian has the image and the modules in packages of their own.
	var packages []string
	for _, part := range []string{"image", "binary", "modules"} {
		if name := "linux-" + part + "-" + release; slices.Contains(names, name) {
			packages = append(packages, name)
		}
	}
	err = s.fetch(ctx, a, release, packages)
	return s.unpacked(release), err
}

// fetch downloads a kernel's packages.
func (s store) fetch(ctx context.Context, a apt, release string, packages []string) error {
	fmt.Printf("downloading Linux %s\n", release)
	return s.unpack(ctx, a, release, packages, func(root string) error {
		if k := unpackedAt(root, release); !exists(k.image) || !exists(filepath.Join(k.modules, "kernel")) {
			return fmt.Errorf("packages %s hold no kernel with modules", strings.Join(packages, ", "))
		}
		return nil
	})
}

// unpack puts packages' files into a directory of the store. It works beside that directory and renames at the end, so that a directory
// with its final name is complete.
func (s store) unpack(ctx context.Context, a apt, name string, packages []string, check func(root string) error) error {
	tmp, err := os.MkdirTemp(s.dir, ".tmp-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if _, err := a.run(ctx, tmp, "apt-get", append([]string{"--quiet=2", "download"}, packages...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if err != nil {
		return err
	}
	root := filepath.Join(tmp, "root")
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "--extract", deb, root).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", filepath.Base(deb), err, out)
		}
	}
	// Debian 13's packages have /usr/lib.
	if lib := filepath.Join(root, "lib"); !exists(lib) {
		if err := os.Rename(filepath.Join(root, "usr", "lib"), lib); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := check(root); err != nil {
		return err
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return err
	}
	return os.Rename(root, filepath.Join(s.dir, name))
}

// apt reads suites of its own, from the mirror that this machine uses, and leaves the machine's lists alone.
type apt struct {
	lists string
	args  []string
}

func newApt(dir string, arch arch) (apt, error) {
	sources, lists := filepath.Join(dir, "kernels.sources"), filepath.Join(dir, "lists")
	if err := os.MkdirAll(filepath.Join(lists, "partial"), 0o755); err != nil {
		return apt{}, err
	}
	mirror, err := debianMirror("/etc/apt")
	if err != nil {
		return apt{}, err
	}
	content := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nArchitectures: %s\nSigned-By: %s\n",
		mirror, strings.Join(suites, " "), arch.name, "/usr/share/keyrings/debian-archive-keyring.gpg")
	if err := os.WriteFile(sources, []byte(content), 0o644); err != nil {
		return apt{}, err
	}
	return apt{lists: lists, args: []string{
		"--option=Dir::Etc::SourceList=" + sources,
		"--option=Dir::Etc::SourceParts=/dev/null",
		"--option=Dir::State::Lists=" + lists,
		"--option=Dir::Cache::PkgCache=",
		"--option=Dir::Cache::SrcPkgCache=",
		"--option=Dir::State::Status=/dev/null", // the machine's packages are of another architecture
		"--option=APT::Architecture=" + arch.name,
		"--option=APT::Sandbox::User=root",
		"--option=Acquire::Languages=none",
		"--option=Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
	}}, nil
}

// updatedApt knows today's packages.
func (s store) updatedApt(ctx context.Context) (apt, error) {
	a, err := newApt(filepath.Join(s.dir, ".apt-"+s.arch.name), s.arch)
	if err != nil {
		return a, err
	}
	fmt.Println("reading Debian's lists of packages")
	_, err = a.run(ctx, a.lists, "apt-get", "--quiet=2", "update")
	return a, err
}

func (a apt) run(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, append(slices.Clone(a.args), args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

var mirrorLine = regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[.*\])?)\s+(https?://\S*/debian)/?(?:\s|$)`)

// debianMirror is where this machine gets Debian's packages from.
func debianMirror(etc string) (string, error) {
	files, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*"))
	if err != nil {
		return "", err
	}
	for _, file := range append(files, filepath.Join(etc, "sources.list")) {
		if b, err := os.ReadFile(file); err == nil {
			if m := mirrorLine.FindSubmatch(b); m != nil {
				return string(m[1]), nil
			}
		}
	}
	return "", fmt.Errorf("no Debian mirror in %s: this needs Debian's apt", etc)
}

// newest picks the newest release of a version: 6.1 is 6.1.0-50-cloud-amd64 and not 6.12.43.
func newest(releases []string, version string) string {
	best := ""
	for _, r := range releases {
		if !strings.HasPrefix(r, ".") && isOf(r, version) && (best == "" || slices.Compare(numbers(r), numbers(best)) > 0) {
			best = r
		}
	}
	return best
}

func isOf(release, version string) bool {
	rest, ok := strings.CutPrefix(release, version)
	return ok && (version == "" || rest == "" || strings.ContainsAny(rest[:1], ".-+"))
}

var digits = regexp.MustCompile(`[0-9]+`)

func numbers(release string) []int {
	var out []int
	release, _, _ = strings.Cut(release, "-cloud-") // the architecture's name has digits
	for _, s := range digits.FindAllString(release, -1) {
		n, _ := strconv.Atoi(s) // too long for a number is no version
		out = append(out, n)
	}
	return out
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
