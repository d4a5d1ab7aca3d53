package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

const repo = "../.."

// Two clones in different places give the same images and bills of materials, byte for byte.
func TestBuildIsReproducible(t *testing.T) {
	var clones [2]string
	for i := range clones {
		clones[i] = clone(t)
		cmd := exec.Command("make", "--silent", "image", "VERSION=v1.2.3", "REVISION=0123abc")
		cmd.Dir = clones[i]
		cmd.Env = append(os.Environ(), "MAKEFLAGS=") // this test may run under make
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, pattern := range []string{"*.tar", "*.cdx.json"} {
		files, err := filepath.Glob(filepath.Join(clones[0], "dist", "*", pattern))
		if err != nil || len(files) != 3 {
			t.Fatalf("%s: %d files, want those of the controller, the agent and the observer (%v)", pattern, len(files), err)
		}
		for _, file := range files {
			name, err := filepath.Rel(clones[0], file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, file), read(t, filepath.Join(clones[1], name))) {
				t.Errorf("%s differs between two builds", name)
			}
		}
	}
	version, err := exec.Command(one(t, filepath.Join(clones[0], "dist", "*", "agent")), "--version").Output()
	if err != nil || string(version) != "v1.2.3\n" {
		t.Errorf("agent --version: %q, %v", version, err)
	}
}

// The platforms that images are built for run the same BPF object: it is little-endian, as they are.
func TestPlatformsShareTheBPFObject(t *testing.T) {
	want := ""
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "list", "-f", "{{.EmbedFiles}}", "./internal/dataplane/bpf")
		cmd.Dir = repo
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		if want == "" {
			want = string(out)
		}
		if string(out) != want || string(out) != "[filter_bpfel.o]\n" {
			t.Errorf("%s embeds %s, want %s", arch, out, want)
		}
	}
}

// clone copies what an image is built from.
func clone(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"api", "cmd", "internal", "hack/image"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(repo, name))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "Makefile"} {
		if err := os.WriteFile(filepath.Join(dir, name), read(t, filepath.Join(repo, name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %v, %v", pattern, files, err)
	}
	return files[0]
}
