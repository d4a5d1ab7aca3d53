package replay

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// WriteHead writes the lines that a recording begins with. objects may be nil.
func WriteHead(out io.Writer, coverage observerapi.Coverage, hidden []string, objects *Objects) error {
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	if err := lines.Encode(observerapi.FlowList{APIVersion: observerapi.APIVersion, Kind: kindList, Coverage: coverage, Hidden: hidden}); err != nil || objects == nil {
		return err
	}
	head := *objects
	head.APIVersion, head.Kind = observerapi.APIVersion, KindObjects
	return lines.Encode(&head)
}

// Writer writes what follows the head of a recording.
type Writer struct {
	out     *bufio.Writer
	lines   *json.Encoder
	known   *dictionary
	line    []byte
	records uint64
}

// NewWriter writes to a file whose head is, or will be, written by WriteHead.
func NewWriter(out io.Writer) *Writer {
	w := &Writer{out: bufio.NewWriterSize(out, 1<<20), known: newDictionary()}
	w.lines = json.NewEncoder(w.out)
	w.lines.SetEscapeHTML(false)
	return w
}

// Write a flow.
func (w *Writer) Write(f *observerapi.Flow) error {
	if nanosOf(f.Last) == 0 {
		return errors.New("a flow has no time")
	}
	number, err := w.define(f)
	if err != nil {
		return err
	}
	return w.record(&row{number, nanosOf(f.First), nanosOf(f.Last), f.Connections})
}

func (w *Writer) record(r *row) error {
	w.records++
	w.line = r.appendTo(w.line[:0])
	_, err := w.out.Write(w.line)
	return err
}

// define a flow and its ends, unless they are known.
func (w *Writer) define(f *observerapi.Flow) (number int, err error) {
	is := flow{Protocol: f.Protocol, Port: f.Port, Verdict: f.Verdict, Reply: f.Reply}
	if is.Source, err = w.defineEnd(&f.Source); err != nil {
		return 0, err
	}
	if is.Destination, err = w.defineEnd(&f.Destination); err != nil {
		return 0, err
	}
	number, isNew := w.known.addFlow(is)
	if isNew {
		err = w.lines.Encode(struct {
			Flow int `json:"flow"`
			flow
		}{number, is})
	}
	return number, err
}

func (w *Writer) defineEnd(e *observerapi.End) (number int, err error) {
	number, isNew, err := w.known.addEnd(e)
	if err == nil && isNew {
		err = w.lines.Encode(struct {
			End   int              `json:"end"`
			Value *observerapi.End `json:"value"`
		}{number, e})
	}
	return number, err
}

// Close writes the end of the recording.
func (w *Writer) Close() error {
	if err := w.lines.Encode(struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Records    uint64 `json:"records"`
	}{observerapi.APIVersion, KindEnd, w.records}); err != nil {
		return err
	}
	return w.out.Flush()
}
