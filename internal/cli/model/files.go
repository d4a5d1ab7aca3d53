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

// ReadPath takes in a file, a directory or, as "-", stdin. A directory with a kustomization is built as `kubectl kustomize`
// does; any other is read with all directories below it: files that end in .yaml, .yml or .json.
func (m *Manifests) ReadPath(path string, stdin io.Reader) error {
	if path == "-" {
		return m.Read("stdin", stdin)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return m.readFile(path)
	}
	return filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != path && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.IsDir() && isKustomization(name):
			if err := m.build(name); err != nil {
				return err
			}
			// what is below it and not one of its resources, such as the policies beside a base, is another's
			return fs.SkipDir
		case entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			return nil
		}
		return m.readFile(name)
	})
}

func (m *Manifests) readFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return m.Read(name, f)
}

func isKustomization(dir string) bool {
	return slices.ContainsFunc(konfig.RecognizedKustomizationFileNames(), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	})
}

func (m *Manifests) build(dir string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return fmt.Errorf("kustomize build %s: %w", dir, err)
	}
	out, err := built.AsYaml()
	if err != nil {
		return fmt.Errorf("kustomize build %s: %w", dir, err)
	}
	return m.Read(dir, strings.NewReader(string(out)))
}

// ReadPaths is the cluster that these paths come to.
func ReadPaths(paths []string, namespace string, stdin io.Reader) (*Cluster, error) {
	m := &Manifests{Namespace: namespace}
	for _, path := range paths {
		if err := m.ReadPath(path, stdin); err != nil {
			return nil, err
		}
	}
	return m.Cluster()
}
