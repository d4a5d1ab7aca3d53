package replay

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Recording is flows with what is needed to judge them without a cluster. Its file has lines of JSON: a FlowList without flows; an Objects; then
// ends and flows, each with a number, before the records that refer to them; and at last an End, without which the file is cut off.
type Recording struct {
	Coverage observerapi.Coverage
	Hidden   []string
	// Objects of the cluster when it was recorded, nil if there are none in the file.
	Objects *Objects

	in     *bufio.Reader
	inline []observerapi.Flow
	known  *dictionary
	line   int // lines that were read
}

// KindObjects and KindEnd are the kinds of the second and the last line of a recording.
const (
	kindList    = "FlowList"
	KindObjects = "Objects"
	KindEnd     = "End"
)

// Objects are those of a cluster that verdicts and recommendations depend on, trimmed to the fields that matter.
type Objects struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"` // KindObjects
	Policies
	Namespaces []corev1.Namespace `json:"namespaces,omitempty"`
	Pods       []corev1.Pod       `json:"pods,omitempty"`
	Services   []corev1.Service   `json:"services,omitempty"`
	Nodes      []corev1.Node      `json:"nodes,omitempty"`
}

// maxLine is the longest line that is read.
const maxLine = 64 << 20

// New is a recording of an observer's answer. objects may be nil.
func New(list *observerapi.FlowList, objects *Objects) *Recording {
	return &Recording{Coverage: list.Coverage, Hidden: list.Hidden, Objects: objects, inline: list.Flows, known: newDictionary()}
}

// Open reads the head of a recording. It reads an answer of the observer, too: a FlowList with its flows in it.
func Open(in io.Reader) (*Recording, error) {
	r := &Recording{in: bufio.NewReaderSize(in, 1<<20), known: newDictionary()}
	text, err := r.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty: record one with --record")
	}
	if err != nil {
		return nil, err
	}
	if len(bytes.TrimSpace(text)) == 1 { // an answer that is indented
		if text, err = r.all(text); err != nil {
			return nil, err
		}
	}
	var head observerapi.FlowList
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, &errLine{1, fmt.Errorf("not the begin of a recording: %w", err)}
	}
	if head.APIVersion != observerapi.APIVersion || head.Kind != kindList {
		return nil, fmt.Errorf("line 1: apiVersion %q, kind %q: not a recording, which begins with apiVersion %s, kind %s",
			head.APIVersion, head.Kind, observerapi.APIVersion, kindList)
	}
	if head.Flows != nil {
		return New(&head, nil), nil
	}
	r.Coverage, r.Hidden = head.Coverage, head.Hidden
	return r, r.readObjects()
}

// readObjects if they are the next line.
func (r *Recording) readObjects() error {
	const begin = `{"apiVersion":"` + observerapi.APIVersion + `","kind":"` + KindObjects + `"`
	if start, err := r.in.Peek(len(begin)); err != nil || string(start) != begin {
		return nil // a file that is shorter is an error once it is read on
	}
	text, err := r.next()
	if err != nil {
		return err
	}
	r.Objects = &Objects{}
	if err := json.Unmarshal(text, r.Objects); err != nil {
		return &errLine{r.line, err}
	}
	return nil
}

// next line without its end.
func (r *Recording) next() ([]byte, error) {
	var out []byte
	for {
		part, err := r.in.ReadSlice('\n')
		out = append(out, part...)
		switch {
		case err == nil:
			r.line++
			return bytes.TrimSuffix(out, []byte("\n")), nil
		case errors.Is(err, bufio.ErrBufferFull) && len(out) <= maxLine:
		case errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("line %d is longer than %d bytes", r.line+1, maxLine)
		case errors.Is(err, io.EOF) && len(out) > 0:
			r.line++
			return out, nil
		default:
			return nil, err
		}
	}
}

// all that follows a text.
func (r *Recording) all(text []byte) ([]byte, error) {
	rest, err := io.ReadAll(io.LimitReader(r.in, maxLine+1))
	if err == nil && len(rest) > maxLine {
		err = fmt.Errorf("an answer in one piece may have %d bytes: record a file of lines with --record", maxLine)
	}
	return append(text, rest...), err
}
