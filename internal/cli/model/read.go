package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// file is read, cut into documents and decoded in parallel with others, and added after those before it.
type file struct {
	name      string
	path      string   // where text is to be read from
	found     bool     // in a directory: not named by the user, so it may be another program's file
	built     bool     // by kustomize: its lines are those of no file
	origins   []string // of its documents, then
	text      []byte
	documents []*document
	err       error
	// objects of all kinds and Lists that it holds.
	objects, lists int
}

// document is one YAML document or one JSON value.
type document struct {
	text []byte
	json []byte
	line int // of its first byte in the file, from 1
	// origin is the file that kustomize made it from; empty if it did not, or there is no such file.
	origin string
	// wanted whatever its kind.
	wanted bool
	// other: an object of a kind that is not decoded.
	other bool
	// items are the objects of it: itself, or those of a List.
	items []*item
	lists int
	err   error
}

// read files and add their objects.
func (m *Manifests) read(files []*file) error {
	var documents []*document
	parallel(files, (*file).cut)
	for _, f := range files {
		if len(f.origins) == len(f.documents) {
			for i, d := range f.documents {
				d.origin = f.origins[i]
			}
		}
		documents = append(documents, f.documents...)
	}
	for _, d := range documents {
		d.wanted = m.Other != nil
	}
	parallel(documents, (*document).decode)
	var items []*item
	for _, d := range documents {
		items = append(items, d.items...)
	}
	parallel(items, (*item).decode)
	for _, f := range files {
		if f.isOthers() {
			m.Notes = append(m.Notes, fmt.Sprintf("skipped %s: it holds no Kubernetes objects", f.name))
			continue
		}
		for i, d := range f.documents {
			if err := d.addTo(m, f); err != nil {
				return fmt.Errorf("%s: document %d: %w", f.name, i+1, err)
			}
			f.objects += len(d.items)
			f.lists += d.lists
			if d.other {
				f.objects++
			}
		}
		if f.err != nil {
			return f.err
		}
	}
	return nil
}

// isOthers reports whether a file in a directory is YAML or JSON of another program: no document of it is an object.
func (f *file) isOthers() bool {
	if !f.found || f.err != nil {
		return false
	}
	others := 0
	for _, d := range f.documents {
		switch {
		case errors.Is(d.err, errNotObject) && len(d.items) == 0:
			others++
		case d.err != nil || len(d.items) > 0 || d.other || d.lists > 0:
			return false
		}
	}
	return others > 0
}

// parallel calls do for each of a list, on all CPUs.
func parallel[T any](list []T, do func(T)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(list); i = int(next.Add(1)) - 1 {
				do(list[i])
			}
		})
	}
	wg.Wait()
}

// cut a file into documents at the lines "---" and "...". YAML allows neither anywhere else at the beginning of a line.
func (f *file) cut() {
	if f.path != "" {
		if f.text, f.err = os.ReadFile(f.path); f.err != nil {
			return
		}
	}
	text := bytes.TrimPrefix(f.text, []byte("\xef\xbb\xbf"))
	if bytes.IndexByte(text, '\r') >= 0 {
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	}
	for line := 1; len(text) > 0; {
		end, next := boundary(text)
		f.add(text[:end], line)
		line += bytes.Count(text[:next], []byte("\n"))
		if rest := bytes.TrimSpace(text[min(end+3, next):next]); len(rest) > 0 && rest[0] != '#' {
			f.documents = append(f.documents, &document{err: fmt.Errorf("a document begins on the line below its separator, and here is %q on it", rest)})
		}
		text = text[next:]
	}
}

// boundary finds the first line that separates documents: from end to next, which are the length of text where there is none.
func boundary(text []byte) (end, next int) {
	for at := 0; at < len(text); {
		line := text[at:]
		n := bytes.IndexByte(line, '\n')
		if n >= 0 {
			line = line[:n]
		}
		if len(line) >= 3 && (line[0] == '-' && string(line[:3]) == "---" || line[0] == '.' && string(line[:3]) == "...") &&
			(len(line) == 3 || line[3] == ' ' || line[3] == '\t') {
			if n < 0 {
				return at, len(text)
			}
			return at, at + n + 1
		}
		if n < 0 {
			break
		}
		at += n + 1
	}
	return len(text), len(text)
}

// add the text between two separators, which begins at a line: YAML, or JSON values one after another.
func (f *file) add(text []byte, line int) {
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) == 0 || isDirective(trimmed) {
		return
	}
	if trimmed[0] == '{' || trimmed[0] == '[' {
		var values []*document
		first := line + bytes.Count(text[:bytes.IndexByte(text, trimmed[0])], []byte("\n"))
		for decoder := json.NewDecoder(bytes.NewReader(trimmed)); ; {
			d := &document{}
			err := decoder.Decode((*json.RawMessage)(&d.json))
			if err == nil {
				begin := int(decoder.InputOffset()) - len(d.json)
				d.line = first + bytes.Count(trimmed[:begin], []byte("\n"))
			}
			if errors.Is(err, io.EOF) {
				f.documents = append(f.documents, values...)
				return
			}
			if err != nil && len(values) == 0 {
				break // YAML in the style of JSON
			}
			d.err = err
			if values = append(values, d); err != nil {
				f.documents = append(f.documents, values...)
				return
			}
		}
	}
	f.documents = append(f.documents, &document{text: text, line: line})
}

// isDirective reports whether a text is YAML's directives for the document that follows.
func isDirective(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '%' && line[0] != '#' {
			return false
		}
	}
	return bytes.IndexByte(text, '%') >= 0
}

// decode a document that concerns policies: YAML becomes JSON, and a List its items.
func (d *document) decode() {
	if d.err == nil && d.json == nil {
		if !d.wanted && !concerns(d.text) {
			d.other = true
			return
		}
		d.json, d.err = toJSON(d.text)
		if d.err != nil && bytes.Contains(d.text, []byte("{{")) {
			d.err = errTemplate
		}
	}
	if d.err == nil {
		d.items, d.lists, d.err = itemsOf(d.json)
	}
}

var errTemplate = errors.New("this is an unrendered template: render it first, as by `helm template CHART | kubectl kidoban … -f -`")

var duplicate = regexp.MustCompile(`line (\d+): key (".*") already set in map`)

// toJSON makes JSON of one YAML document. A key that occurs twice is an error.
func toJSON(text []byte) ([]byte, error) {
	out, err := yaml.YAMLToJSONStrict(text)
	if err == nil {
		return out, nil
	}
	if bytes.Contains(text, []byte("<<")) {
		// the strict reader takes a key that overrides a merged one for a duplicate; this one tells them apart
		var node any
		if err := yamlv3.Unmarshal(text, &node); err != nil {
			return nil, err
		}
		return yaml.YAMLToJSON(text)
	}
	if m := duplicate.FindStringSubmatch(err.Error()); m != nil {
		return nil, fmt.Errorf("line %s: duplicate field %s", m[1], m[2])
	}
	return nil, err
}

func (d *document) addTo(m *Manifests, f *file) error {
	for _, i := range d.items {
		if i.err != nil {
			return d.failed(i, f)
		}
		if err := i.addTo(m); err != nil {
			return err
		}
		if !f.built {
			m.cluster.remember(i, source{file: f.name, document: d, path: i.path()})
		} else if d.origin != "" {
			m.cluster.remember(i, source{file: d.origin, kind: i.Kind, name: string(i.Metadata.Name)})
		}
	}
	return d.err
}

// concerns is false for a document whose kind, in plain sight, is none that is read or reported, and that has no pod template: most of a chart
// need not be parsed.
func concerns(document []byte) bool {
	if bytes.Contains(document, []byte("template:")) && bytes.Contains(document, []byte("containers:")) && !bytes.Contains(document, []byte("\nkind: CustomResourceDefinition")) {
		return true
	}
	found := false
	for line := range bytes.Lines(document) {
		if kind, ok := bytes.CutPrefix(line, []byte("kind:")); ok {
			name := strings.Trim(string(bytes.TrimSpace(kind)), `"'`)
			if found || isConcern(name) || strings.HasSuffix(name, "List") || strings.ContainsAny(name, "{#&* ") {
				return true
			}
			found = true
		}
	}
	return !found
}
