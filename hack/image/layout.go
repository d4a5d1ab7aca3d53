package main

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// write makes the image and writes it as the tar of an OCI image layout. The file
// is there as a whole or not at all.
func (s imageSpec) write(output string) error {
	image, err := s.build()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	err = l.AppendImage(image, layout.WithPlatform(s.platform), layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": s.tag, // the name that containerd gives an imported image
	}))
	if err != nil {
		return err
	}
	tmp := output + ".tmp"
	defer os.Remove(tmp)
	if err := tarDirectory(dir, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, output)
}

// tarDirectory writes the files of a directory in their lexical order.
func tarDirectory(dir, output string) error {
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644, Size: info.Size(), ModTime: epoch}
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return out.Close()
}
