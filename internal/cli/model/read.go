package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/kidoban/kidoban/internal/cli/fastyaml"
)

// file is read, cut into documents and translated beside others, and taken in after those before it.
type file struct {
	name      string
	path      string // where text is to be read from
	text      []byte
	documents []*document
	err       error
}

type document struct {
	yaml []byte
	json []byte
	// wanted whatever its kind.
	wanted bool
	// items are the objects of it: itself, or those of a List.
	items []*item
	err   error
}

// read takes in files.
func (m *Manifests) read(files []*file) error {
	var documents []*document
	parallel(files, (*file).cut)
	for _, f := range files {
		documents = append(documents, f.documents...)
	}
	for _, d := range documents {
		d.wanted = m.Other != nil
	}
	parallel(documents, (*document).translate)
	var items []*item
	for _, d := range documents {
		items = append(items, d.items...)
	}
	parallel(items, (*item).decode)
	for _, f := range files {
		for i, d := range f.documents {
			if err := d.addTo(m); err != nil {
				return fmt.Errorf("%s: document %d: %w", f.name, i+1, err)
			}
		}
		if f.err != nil {
			return f.err
		}
	}
	return nil
}

// parallel does the same to all of a list, on all CPUs.
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

func (f *file) cut() {
	if f.path != "" {
		if f.text, f.err = os.ReadFile(f.path); f.err != nil {
			return
		}
	}
	if text := bytes.TrimSpace(f.text); bytes.HasPrefix(text, []byte("{")) && !bytes.HasPrefix(text, []byte("{{")) { // that is a template
		f.cutJSON()
		return
	}
	if bytes.IndexByte(f.text, '\r') >= 0 {
		f.text = bytes.ReplaceAll(f.text, []byte("\r\n"), []byte("\n"))
	}
	for rest := f.text; len(rest) > 0; {
		end, next := separator(rest)
		if end > 0 {
			f.documents = append(f.documents, &document{yaml: rest[:end]})
		}
		if said := bytes.TrimSpace(bytes.TrimPrefix(rest[end:next], []byte("---"))); len(said) > 0 && said[0] != '#' {
			f.documents = append(f.documents, &document{err: fmt.Errorf("a document begins on the line below its separator, and here is %q on it", said)})
		}
		rest = rest[next:]
	}
}

// separator finds the line between two documents: from end to next, which are the length of text where there is none.
func separator(text []byte) (end, next int) {
	if !bytes.HasPrefix(text, []byte("---")) {
		if end = bytes.Index(text, []byte("\n---")) + 1; end == 0 {
			return len(text), len(text)
		}
	}
	if n := bytes.IndexByte(text[end:], '\n'); n >= 0 {
		return end, end + n + 1
	}
	return end, len(text)
}

func (f *file) cutJSON() {
	if text, ok := fastyaml.Try(f.text, idle); ok {
		f.documents = []*document{{json: text}}
		return
	}
	for decoder := json.NewDecoder(bytes.NewReader(f.text)); ; {
		d := &document{}
		d.err = decoder.Decode((*json.RawMessage)(&d.json))
		if errors.Is(d.err, io.EOF) {
			return
		}
		if f.documents = append(f.documents, d); d.err != nil {
			return
		}
	}
}

// idle is what of pods, their templates and nodes no policy asks for, and is most of them.
var idle = func() fastyaml.Skip {
	none := fastyaml.Skip{}
	container := fastyaml.Skip{"args": none, "command": none, "env": none, "envFrom": none, "lifecycle": none, "livenessProbe": none, "readinessProbe": none,
		"resources": none, "securityContext": none, "startupProbe": none, "volumeDevices": none, "volumeMounts": none}
	pod := fastyaml.Skip{"affinity": none, "containers": container, "initContainers": container, "securityContext": none, "tolerations": none,
		"topologySpreadConstraints": none, "volumes": none}
	object := fastyaml.Skip{"metadata": {"managedFields": none}, "spec": pod,
		"status": {"conditions": none, "containerStatuses": none, "ephemeralContainerStatuses": none, "images": none, "initContainerStatuses": none}}
	pod["template"] = fastyaml.Skip{"spec": pod}
	pod["jobTemplate"] = fastyaml.Skip{"spec": pod}
	object["items"] = object
	return object
}()

// translate makes JSON of a document that concerns policies: of reading a big cluster it is most.
func (d *document) translate() {
	if d.err == nil && d.json == nil && (d.wanted || concerns(d.yaml)) {
		d.json, d.err = fastyaml.ToJSON(d.yaml, idle)
		if d.err != nil && bytes.Contains(d.yaml, []byte("{{")) {
			d.err = errors.New("this is a template: render it first, as by `helm template CHART | kubectl kidoban … -f -`")
		}
	}
	if d.err == nil && d.json != nil {
		d.items, d.err = itemsOf(d.json)
	}
}

func (d *document) addTo(m *Manifests) error {
	for _, i := range d.items {
		if i.err != nil {
			return i.err
		}
		if err := i.addTo(m); err != nil {
			return err
		}
	}
	return d.err
}

// concerns is false for a document whose kind, in plain sight, is none of ours: most of a chart need not be parsed.
func concerns(document []byte) bool {
	for line := range bytes.Lines(document) {
		if kind, ok := bytes.CutPrefix(line, []byte("kind:")); ok {
			name := strings.Trim(string(bytes.TrimSpace(kind)), `"'`)
			return kinds[name] || strings.HasSuffix(name, "List") || strings.ContainsAny(name, "{#&")
		}
	}
	return true
}
