package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A program that the machine runs.
type program struct {
	Name string   // of the package, for people
	Path string   // in the machine
	Dir  string   // in the machine
	Args []string // without the program's name

	binary   string // on this machine
	testdata string // on this machine, empty where the package has none
}

// buildTests makes a static binary of each package's tests. Packages are paths of the module in the working directory.
func buildTests(ctx context.Context, arch arch, out, tags string, packages []string) ([]program, error) {
	var programs []program
	for _, pkg := range packages {
		name := filepath.ToSlash(filepath.Clean(pkg))
		p := program{Name: name, Dir: "/tests/" + name, binary: filepath.Join(out, strings.ReplaceAll(name, "/", "-")+".test")}
		p.Path = p.Dir + "/test"
		if err := goTool(ctx, arch, "", "test", "-c", "-trimpath", "-tags="+tags, "-o="+p.binary, "./"+name); err != nil {
			return nil, err
		}
		if dir := filepath.Join(pkg, "testdata"); exists(dir) {
			p.testdata = dir
		}
		programs = append(programs, p)
	}
	return programs, nil
}

// starts are programs of this machine's files that print their version and end: binaries of an image that must start on the kernel.
func starts(files []string) (programs []program) {
	for _, file := range files {
		dir := "/start/" + filepath.Base(file)
		programs = append(programs, program{Name: file, Path: dir + "/program", Dir: dir, Args: []string{"--version"}, binary: file})
	}
	return programs
}

// buildInit makes what the machine starts as PID 1.
func buildInit(ctx context.Context, arch arch, out string) error {
	dir, err := sourceDir()
	if err != nil {
		return err
	}
	return goTool(ctx, arch, dir, "build", "-trimpath", "-ldflags=-s -w", "-o="+out, "./init")
}

// sourceDir is this module's, found from the root of the clone.
func sourceDir() (string, error) {
	dir, err := filepath.Abs(filepath.Join("hack", "vm"))
	if err == nil && !exists(filepath.Join(dir, "go.mod")) {
		err = fmt.Errorf("no %s: call this in the root of the clone", dir)
	}
	return dir, err
}

func goTool(ctx context.Context, arch arch, dir string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch.name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
