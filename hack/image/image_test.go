package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// pack runs the command for an image with one binary and returns the tar's path.
func pack(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	binary, output := filepath.Join(dir, "agent"), filepath.Join(dir, "agent.tar")
	if err := os.WriteFile(binary, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := newCommand()
	cmd.SetArgs(append([]string{
		"--output=" + output, "--tag=kidoban.dev/agent:dev", "--entrypoint=/bin/agent", binary + ":/bin/agent",
	}, args...))
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return output
}

// unpack extracts the files of a tar into a directory.
func unpack(t *testing.T, path string) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestImage(t *testing.T) {
	index, err := layout.ImageIndexFromPath(unpack(t, pack(t, "--user=0", "--platform=linux/arm64")))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != 1 {
		t.Fatalf("%d images, want 1", len(manifest.Manifests))
	}
	entry := manifest.Manifests[0]
	if got := entry.Annotations["io.containerd.image.name"]; got != "kidoban.dev/agent:dev" {
		t.Errorf("name %q", got)
	}
	if !entry.Platform.Equals(v1.Platform{OS: "linux", Architecture: "arm64"}) {
		t.Errorf("platform %v", entry.Platform)
	}
	image, err := index.Image(entry.Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm64" || config.Config.User != "0" || !slices.Equal(config.Config.Entrypoint, []string{"/bin/agent"}) {
		t.Errorf("config %+v", config)
	}
	modes := map[string]int64{}
	content := mutate.Extract(image)
	defer content.Close()
	for r := tar.NewReader(content); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[strings.TrimSuffix(header.Name, "/")] = header.Mode
		if header.Uid != 0 || !header.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s: owner %d, time %s", header.Name, header.Uid, header.ModTime)
		}
	}
	want := map[string]int64{
		"bin": 0o755, "bin/agent": 0o755, "etc": 0o755, "etc/passwd": 0o644, "etc/group": 0o644, "tmp": 0o1777,
	}
	if !maps.Equal(modes, want) {
		t.Errorf("files %v, want %v", modes, want)
	}
}

func TestImageIsReproducible(t *testing.T) {
	first, err := os.ReadFile(pack(t))
	if err != nil {
		t.Fatal(err)
	}
	second, err := os.ReadFile(pack(t))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("the same files gave different images")
	}
}

func TestBadArguments(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(binary, []byte("binary"), 0o755); err != nil {
		t.Fatal(err)
	}
	output := filepath.Join(t.TempDir(), "x.tar")
	tests := map[string][]string{
		"want FILE:PATH":       {"--tag=kidoban.dev/a:b", binary + ":agent"},
		"no such file":         {"--tag=kidoban.dev/a:b", "missing:/agent"},
		"want os/architecture": {"--tag=kidoban.dev/a:b", "--platform=linux", binary + ":/agent"},
		"tag":                  {"--tag=agent", binary + ":/agent"},
	}
	for want, args := range tests {
		cmd := newCommand()
		cmd.SetArgs(append([]string{"--output=" + output, "--entrypoint=/agent"}, args...))
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
		if _, err := os.Stat(output); err == nil {
			t.Errorf("%q: wrote a file", args)
		}
	}
}
