package model

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// filesOf a path: a file, a directory or, as "-", stdin. A directory with a kustomization is built as `kubectl kustomize`
// does; any other is read with all directories below it: files that end in .yaml, .yml or .json.
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
		return []*file{{name: path, path: path}}, nil
	}
	var out []*file
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != path && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() && isKustomization(name):
			built, err := build(name)
			if err != nil {
				return fmt.Errorf("kustomize build %s: %w", name, err)
			}
			out = append(out, &file{name: name, text: built})
			// what is below it and not one of its resources, such as the policies beside a base, is another's
			return fs.SkipDir
		case entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			return nil
		}
		out = append(out, &file{name: name, path: name})
		return nil
	})
	return out, err
}

func isKustomization(dir string) bool {
	return slices.ContainsFunc(konfig.RecognizedKustomizationFileNames(), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	})
}

func build(dir string) ([]byte, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, err
	}
	return built.AsYaml()
}

// ReadPaths takes in what these paths come to.
func (m *Manifests) ReadPaths(paths []string, stdin io.Reader) error {
	var files []*file
	for _, path := range paths {
		more, err := filesOf(path, stdin)
		if err != nil {
			return err
		}
		files = append(files, more...)
	}
	return m.read(files)
}

// ReadPaths is the cluster that these paths come to.
func ReadPaths(paths []string, namespace string, stdin io.Reader) (*Cluster, error) {
	m := &Manifests{Namespace: namespace}
	if err := m.ReadPaths(paths, stdin); err != nil {
		return nil, err
	}
	return m.Cluster()
}
