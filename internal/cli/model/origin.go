package model

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// build a directory as `kubectl kustomize` does. origins are the files that its documents were made from; "" for one that kustomize generated
// or downloaded.
func build(dir string) (text []byte, origins []string, err error) {
	run := func(fs filesys.FileSystem) (resmap.ResMap, error) {
		return krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, dir)
	}
	disk := filesys.MakeFsOnDisk()
	built, err := run(withOrigins{disk, dir})
	if err != nil {
		if built, err = run(disk); err != nil { // whose message is about the lines that the user wrote
			return nil, nil, err
		}
	}
	for _, r := range built.Resources() {
		file := ""
		if o, err := r.GetOrigin(); err == nil && o != nil && o.Repo == "" && o.Path != "" {
			file = filepath.Join(dir, o.Path)
		}
		origins = append(origins, file)
	}
	if err := built.RemoveOriginAnnotations(); err != nil {
		return nil, nil, err
	}
	text, err = built.AsYaml()
	return text, origins, err
}

// withOrigins is a file system whose kustomization in a directory asks for annotations that name the file of each object.
type withOrigins struct {
	filesys.FileSystem
	dir string
}

// ReadFile adds to that kustomization.
func (w withOrigins) ReadFile(name string) ([]byte, error) {
	text, err := w.FileSystem.ReadFile(name)
	if err != nil || !slices.Contains(konfig.RecognizedKustomizationFileNames(), filepath.Base(name)) || bytes.Contains(text, []byte("buildMetadata")) {
		return text, err
	}
	dir, _, err := w.CleanedAbs(w.dir)
	if err != nil || dir.String() != filepath.Dir(name) {
		return text, nil
	}
	return append(bytes.Clone(text), "\nbuildMetadata: [originAnnotations]\n"...), nil
}

// original finds the document in a file that kustomize made an object from: of the same kind, and with the same name or one that kustomize made
// longer. Nil if there is none.
func original(name, kind, object string) *document {
	f := &file{path: name}
	f.cut()
	if f.err != nil {
		return nil
	}
	var found *document
	longest := 0
	for _, d := range f.documents {
		var head struct {
			Kind     string
			Metadata struct{ Name string }
		}
		text := d.text
		if text == nil {
			text = d.json
		}
		if d.err != nil || yamlv3.Unmarshal(text, &head) != nil || head.Kind != kind || head.Metadata.Name == "" {
			continue
		}
		if n := len(head.Metadata.Name); n > longest && strings.Contains(object, head.Metadata.Name) {
			found, longest = d, n
		}
	}
	return found
}
