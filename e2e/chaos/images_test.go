//go:build e2e

package chaos

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// beside are the only files beside the binary: the name of the user that it runs as.
var beside = []string{"etc/passwd", "etc/group"}

// TestImages lists all files of both images: one static binary each and the names of its user, no shell, nothing else that runs.
func TestImages(t *testing.T) {
	for _, image := range build.Images[:2] {
		name := filepath.Base(image[:len(image)-len(".tar")])
		files := map[string][]byte{} // of all layers
		blobs := untar(t, image)
		for _, layer := range layers(t, blobs) {
			unpack(t, layer, files)
		}
		for path, content := range files {
			if slices.Contains(beside, path) {
				if strings.Contains(string(content), "/bin/") {
					t.Errorf("%s: /%s names a shell: %s", name, path, content)
				}
				continue
			}
			if path != name {
				t.Errorf("%s: the image holds /%s", name, path)
				continue
			}
			binary, err := elf.NewFile(bytes.NewReader(content))
			must(t, err)
			if os.Getenv("RACE") == "" && slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
				t.Errorf("%s: /%s needs a dynamic linker, which the image does not have", name, path)
			}
		}
		if files[name] == nil {
			t.Errorf("%s: /%s is missing", name, name)
		}
	}
}

func untar(t *testing.T, file string) map[string][]byte {
	t.Helper()
	content, err := os.ReadFile(file)
	must(t, err)
	files := map[string][]byte{}
	unpack(t, content, files)
	return files
}

// unpack adds the files, not the directories, of a tar.
func unpack(t *testing.T, archive []byte, files map[string][]byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		if header.Typeflag == tar.TypeDir {
			continue
		}
		content, err := io.ReadAll(r)
		must(t, err)
		files[filepath.Clean(header.Name)] = content
	}
}

// layers are the uncompressed layers of the one image in an OCI layout.
func layers(t *testing.T, blobs map[string][]byte) [][]byte {
	t.Helper()
	type descriptor struct{ Digest string }
	read := func(d descriptor, into any) []byte {
		b := blobs["blobs/sha256/"+d.Digest[len("sha256:"):]]
		if into != nil {
			must(t, json.Unmarshal(b, into))
		}
		return b
	}
	var index struct{ Manifests []descriptor }
	must(t, json.Unmarshal(blobs["index.json"], &index))
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests", len(index.Manifests))
	}
	var manifest struct{ Layers []descriptor }
	read(index.Manifests[0], &manifest)
	var out [][]byte
	for _, d := range manifest.Layers {
		layer := read(d, nil)
		if bytes.HasPrefix(layer, []byte{0x1f, 0x8b}) {
			z, err := gzip.NewReader(bytes.NewReader(layer))
			must(t, err)
			layer, err = io.ReadAll(z)
			must(t, err)
		}
		out = append(out, layer)
	}
	return out
}
