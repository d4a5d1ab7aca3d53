package main

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// versionLabel is the image's version: https://github.com/opencontainers/image-spec/blob/main/annotations.md.
const versionLabel = "org.opencontainers.image.version"

// An imageSpec is an image with one layer on scratch.
type imageSpec struct {
	tag        string
	entrypoint []string
	user       string
	labels     map[string]string
	platform   v1.Platform
	files      []file
}

// A file or, with a mode that says so, a directory of the layer.
type file struct {
	path    string // absolute
	mode    os.FileMode
	content []byte
}

// baseFiles are in every image: programs expect /tmp, and names for users.
var baseFiles = []file{
	{path: "/tmp", mode: os.ModeDir | os.ModeSticky | 0o777},
	{path: "/etc/passwd", mode: 0o644, content: []byte(
		"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
	{path: "/etc/group", mode: 0o644, content: []byte("root:x:0:\nnonroot:x:65532:\n")},
}

var epoch = time.Unix(0, 0).UTC()

func (s imageSpec) build() (v1.Image, error) {
	content, err := layer(append(slices.Clone(baseFiles), s.files...))
	if err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer),
	)
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.Append(base, mutate.Addendum{
		Layer:   l,
		History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "hack/image"},
	})
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: epoch}
	config.OS, config.Architecture, config.Variant = s.platform.OS, s.platform.Architecture, s.platform.Variant
	config.Config = v1.Config{
		Entrypoint: s.entrypoint,
		User:       s.user,
		Labels:     s.labels,
		WorkingDir: "/",
		Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin:/"},
	}
	return mutate.ConfigFile(image, config)
}

// layer writes the files, and the directories above them, as a tar with fixed
// owners, times and order.
func layer(files []file) ([]byte, error) {
	all := map[string]file{}
	for _, f := range files {
		f.path = strings.TrimPrefix(path.Clean(f.path), "/")
		all[f.path] = f
		for dir := path.Dir(f.path); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = file{path: dir, mode: os.ModeDir | 0o755}
			}
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names) // a directory comes before what it holds
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := writeEntry(w, all[name]); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func writeEntry(w *tar.Writer, f file) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     f.path,
		Mode:     int64(f.mode.Perm()),
		Size:     int64(len(f.content)),
		ModTime:  epoch,
	}
	if f.mode.IsDir() {
		header.Typeflag = tar.TypeDir
		header.Name += "/"
	}
	if f.mode&os.ModeSticky != 0 {
		header.Mode |= 0o1000
	}
	if err := w.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.Write(f.content)
	return err
}
