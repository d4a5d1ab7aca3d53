package main

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// addForeignTool packs nft and its libraries for an architecture that this machine does not run, from Debian's packages.
func (a *archive) addForeignTool(ctx context.Context, s store) error {
	root, err := s.foreignRoot(ctx)
	if err != nil {
		return err
	}
	program := filepath.Join(root, "usr", "sbin", nft)
	if err := a.addLibraries(root, program, map[string]bool{}); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	return a.file("bin/"+nft, program)
}

// foreignRoot is the directory with the files of nft's package and of those that it depends on.
func (s store) foreignRoot(ctx context.Context) (string, error) {
	name := nft + "-" + s.arch.name
	root := filepath.Join(s.dir, name)
	if exists(root) {
		return root, nil
	}
	l, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	if exists(root) { // another process downloaded it
		return root, nil
	}
	a, err := s.updatedApt(ctx)
	if err != nil {
		return "", err
	}
	out, err := a.run(ctx, a.lists, "apt-cache", "depends", "--recurse", "--no-pre-depends", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", "nftables")
	if err != nil {
		return "", err
	}
	fmt.Printf("downloading nft for %s\n", s.arch.name)
	return root, s.unpack(ctx, a, name, dependencies(out), func(root string) error {
		_, err := os.Stat(filepath.Join(root, "usr", "sbin", nft))
		return err
	})
}

// dependencies are the packages in the output of apt-cache depends --recurse. Each stands alone in a line, and its own dependencies are
// indented. Virtual packages are in angle brackets.
func dependencies(out string) (packages []string) {
	for line := range strings.Lines(out) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && !strings.ContainsAny(line, " <|") {
			packages = append(packages, line)
		}
	}
	return packages
}

// addLibraries packs the libraries and the loader that a file names, and those that they need.
func (a *archive) addLibraries(root, file string, done map[string]bool) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		content := make([]byte, p.Filesz)
		if _, err := p.ReadAt(content, 0); err != nil {
			return err
		}
		loader := strings.TrimPrefix(strings.TrimRight(string(content), "\x00"), "/")
		if err := a.file(loader, filepath.Join(root, loader)); err != nil {
			return err
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range names {
		if done[name] {
			continue
		}
		done[name] = true
		found, err := filepath.Glob(filepath.Join(root, "lib", "*-linux-gnu", name))
		if err == nil && len(found) == 0 {
			found, err = filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu", name)) // Debian 12's packages have both
		}
		if err != nil || len(found) == 0 {
			return fmt.Errorf("no library %s in %s: remove that directory, and it is downloaded again", name, root)
		}
		// The loader looks in /lib, whatever the architecture.
		if err := a.file("lib/"+name, found[0]); err != nil {
			return err
		}
		if err := a.addLibraries(root, found[0], done); err != nil {
			return err
		}
	}
	return nil
}
