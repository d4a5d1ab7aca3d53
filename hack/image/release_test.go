//go:build release

package main

import (
	"archive/tar"
	"bufio"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// TestRelease builds a release and pushes it, as README.md says, to a registry in this process. Everything that the release's files name must be
// there: each image of the manifests and of the chart for both platforms, and each archive of the krew manifest with its checksum.
// It overwrites dist, so hack/release-check.sh runs it in a clone.
func TestRelease(t *testing.T) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	repo, version := filepath.Join("..", ".."), cmp.Or(os.Getenv("VERSION"), "v0.0.0")
	prefix := strings.TrimPrefix(server.URL, "http://") + "/kidoban"
	build := exec.CommandContext(t.Context(), "make", "--no-print-directory", "release", "push", "VERSION="+version, "REGISTRY="+prefix)
	build.Dir = repo
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	release := filepath.Join(repo, "dist", "release")

	images := map[string]bool{}
	manifests, err := filepath.Glob(filepath.Join(release, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range manifests {
		for _, m := range regexp.MustCompile(`(?m)^\s*(?:- )?image: (\S+)$`).FindAllStringSubmatch(readText(t, file), -1) {
			images[m[1]] = true
		}
	}
	chart := filesOf(t, filepath.Join(release, "kidoban-"+strings.TrimPrefix(version, "v")+".tgz"))
	for _, want := range []string{"\n  registry: " + prefix + "\n", "\nappVersion: " + version + "\n"} {
		if !strings.Contains("\n"+chart["kidoban/values.yaml"]+chart["kidoban/Chart.yaml"], want) {
			t.Errorf("the chart lacks %q", want)
		}
	}
	for _, program := range []string{"controller", "agent", "observer"} { // as the chart names them, too
		if image := prefix + "/" + program + ":" + version; !images[image] {
			t.Errorf("no manifest has %s; they have %v", image, images)
		}
	}
	for image := range images {
		pull(t, image)
	}
	checkKrew(t, release, version)
	checkSums(t, release)
	for _, file := range glob(t, filepath.Join(release, "*.cdx.json")) {
		var bom struct {
			Format     string `json:"bomFormat"`
			Components []struct{ Name, Version string }
		}
		if err := json.Unmarshal([]byte(readText(t, file)), &bom); err != nil || bom.Format != "CycloneDX" || len(bom.Components) < 10 {
			t.Errorf("%s: %q with %d components, %v", file, bom.Format, len(bom.Components), err)
		}
	}
}

// pull an image from the registry, for both platforms.
func pull(t *testing.T, image string) {
	t.Helper()
	ref, err := name.ParseReference(image)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(ref)
	if err != nil {
		t.Errorf("%s: %v", image, err)
		return
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("%s: %v", image, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, m := range manifest.Manifests {
		platforms = append(platforms, m.Platform.String())
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(platforms, want) {
		t.Errorf("%s is for %v, want %v", image, platforms, want)
	}
}

// checkKrew looks that each archive of the krew manifest is there, has that checksum, and holds the plugin and the licence.
func checkKrew(t *testing.T, release, version string) {
	t.Helper()
	found := regexp.MustCompile(`(?m)^    uri: \S+/`+regexp.QuoteMeta(version)+`/(\S+)\n    sha256: (\w+)\n    bin: (\S+)$`).
		FindAllStringSubmatch(readText(t, filepath.Join(release, "krew-kidoban.yaml")), -1)
	if len(found) != 5 {
		t.Errorf("the krew manifest has %d archives, want 5", len(found))
	}
	for _, m := range found {
		file := filepath.Join(release, m[1])
		if sum := sha256.Sum256([]byte(readText(t, file))); hex.EncodeToString(sum[:]) != m[2] {
			t.Errorf("%s has the checksum %x, and the krew manifest has %s", m[1], sum, m[2])
		}
		files := filesOf(t, file)
		if files["./"+m[3]] == "" || files["./LICENSE"] == "" {
			t.Errorf("%s lacks %s or LICENSE", m[1], m[3])
		}
	}
}

// checkSums compares the files with SHA256SUMS, which has all of them.
func checkSums(t *testing.T, release string) {
	t.Helper()
	sums := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(readText(t, filepath.Join(release, "SHA256SUMS"))))
	for lines.Scan() {
		sum, file, _ := strings.Cut(lines.Text(), "  ")
		sums[file] = sum
	}
	for _, file := range glob(t, filepath.Join(release, "*")) {
		if base := filepath.Base(file); base != "SHA256SUMS" {
			if sum := sha256.Sum256([]byte(readText(t, file))); sums[base] != hex.EncodeToString(sum[:]) {
				t.Errorf("%s has the checksum %x, and SHA256SUMS has %q", base, sum, sums[base])
			}
		}
	}
}

// filesOf are the files of a compressed tar.
func filesOf(t *testing.T, name string) map[string]string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(text)
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(files), err)
	}
	return files
}
