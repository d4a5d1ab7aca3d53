package model

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
)

var extensions = []string{".yaml", ".yml", ".json"}

// filesOf a path: a file, a directory or, as "-", stdin. A directory with a kustomization is built as `kubectl kustomize`
// does; any other is read with all directories below it: files that end in .yaml, .yml or .json. Symbolic links are followed.
func filesOf(path string, stdin io.Reader) ([]*file, error) {
	if path == "-" {
		text, err := io.ReadAll(stdin)
		return []*file{{name: "stdin", text: text}}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if slices.Contains(konfig.RecognizedKustomizationFileNames(), filepath.Base(path)) {
			return nil, errKustomization(path)
		}
		return []*file{{name: path, path: path}}, nil
	}
	d := &directory{seen: map[string]bool{}}
	if err := d.read(path); err != nil {
		return nil, err
	}
	if len(d.files) == 0 {
		return nil, fmt.Errorf("%s: no manifests there: files whose names end in %s", path, strings.Join(extensions, ", "))
	}
	return d.files, nil
}

func errKustomization(path string) error {
	dir := filepath.Dir(path)
	return fmt.Errorf("%s is a kustomization and holds no objects: give its directory (-f %s), or render it first, as by `kubectl kustomize %[2]s | kubectl kidoban … -f -`", path, dir)
}

// directory collects the files of a directory and of those below it.
type directory struct {
	files []*file
	seen  map[string]bool // real paths, so that links that form a loop end
}

func (d *directory) read(dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if d.seen[real] {
		return nil
	}
	d.seen[real] = true
	if isKustomization(dir) {
		built, origins, err := build(dir)
		if err != nil {
			return fmt.Errorf("kustomize build %s: %w", dir, err)
		}
		d.files = append(d.files, &file{name: dir, text: built, built: true, origins: origins})
		// files below it that are not among its resources, such as the policies beside a base, belong to another kustomization
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		info, err := os.Stat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // a link to nowhere
			continue
		case err != nil:
			return err
		case info.IsDir() && !strings.HasPrefix(entry.Name(), "."):
			if err := d.read(name); err != nil {
				return err
			}
		case info.Mode().IsRegular() && slices.Contains(extensions, filepath.Ext(name)):
			d.files = append(d.files, &file{name: name, path: name, found: true})
		}
	}
	return nil
}

func isKustomization(dir string) bool {
	return slices.ContainsFunc(konfig.RecognizedKustomizationFileNames(), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	})
}

// ReadPaths reads the manifests at these paths. A path without any object is an error.
func (m *Manifests) ReadPaths(paths []string, stdin io.Reader) error {
	var files []*file
	byPath := map[string][]*file{}
	for _, path := range paths {
		more, err := filesOf(path, stdin)
		if err != nil {
			return err
		}
		byPath[path] = more
		files = append(files, more...)
	}
	if err := m.read(files); err != nil {
		return err
	}
	for _, path := range paths {
		if !slices.ContainsFunc(byPath[path], func(f *file) bool { return f.objects > 0 || f.lists > 0 }) {
			return fmt.Errorf("%s: no Kubernetes objects there", pathName(path))
		}
	}
	if !slices.ContainsFunc(files, func(f *file) bool { return f.objects > 0 }) {
		return fmt.Errorf("%s: only empty Lists, no Kubernetes objects", strings.Join(paths, ", "))
	}
	return nil
}

// ReadPaths returns the cluster of the manifests at these paths.
func ReadPaths(paths []string, namespace string, stdin io.Reader) (*Cluster, error) {
	m := &Manifests{Namespace: namespace}
	if err := m.ReadPaths(paths, stdin); err != nil {
		return nil, err
	}
	return m.Cluster()
}

func pathName(path string) string {
	if path == "-" {
		return "stdin"
	}
	return path
}
