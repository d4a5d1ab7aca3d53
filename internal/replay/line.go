package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// record is what a line of a recording says, as far as replay needs it.
type record struct {
	first, last         time.Time
	source, destination *end
	protocol            string
	port                uint16
	verdict             observerapi.Verdict
	connections         uint64
	reply               bool
}

// maxCached is how many different texts a reader remembers. Beyond it, it forgets them all.
const maxCached = 1 << 17

// lineReader reads lines of JSON, a Flow each. The ends of flows repeat, so each text of an end is parsed once: this is several times as fast as
// package encoding/json, which reads lines that are written in another way than by this package.
type lineReader struct {
	judge *Judge
	ends  map[string]*end
	// checked are texts of decisions that package encoding/json can read.
	checked map[string]struct{}
	words   map[string]string
}

func newLineReader(j *Judge) *lineReader {
	return &lineReader{judge: j, ends: map[string]*end{}, checked: map[string]struct{}{}, words: map[string]string{}}
}

// read a line.
func (r *lineReader) read(line []byte) (record, error) {
	if out, ok := r.readFast(line); ok && !out.last.IsZero() {
		return out, nil
	}
	f, err := parse(line)
	if err != nil {
		return record{}, err
	}
	return r.recordOf(f), nil
}

// parse a line as package encoding/json does.
func parse(line []byte) (*observerapi.Flow, error) {
	out := &observerapi.Flow{}
	if err := json.Unmarshal(line, out); err != nil {
		return nil, err
	}
	if out.Last.IsZero() {
		return nil, errors.New("not a flow: it has no time")
	}
	return out, nil
}

func (r *lineReader) recordOf(f *observerapi.Flow) record {
	return record{first: f.First, last: f.Last, source: r.endOf(&f.Source), destination: r.endOf(&f.Destination), protocol: f.Protocol,
		port: f.Port, verdict: f.Verdict, connections: f.Connections, reply: f.Reply}
}

func (r *lineReader) endOf(e *observerapi.End) *end {
	out := r.judge.newEnd(*e)
	text, _ := json.Marshal(e) // it was read from JSON
	out.text = string(text)
	return out
}

// Fields of a Flow, as bits: none may come twice.
const (
	fieldFirst = 1 << iota
	fieldLast
	fieldSource
	fieldDestination
	fieldService
	fieldProtocol
	fieldPort
	fieldVerdict
	fieldEgress
	fieldIngress
	fieldSides
	fieldConnections
	fieldBytes
	fieldReply
)

var fields = map[string]int{
	"first": fieldFirst, "last": fieldLast, "source": fieldSource, "destination": fieldDestination, "service": fieldService, "protocol": fieldProtocol,
	"port": fieldPort, "verdict": fieldVerdict, "egress": fieldEgress, "ingress": fieldIngress, "sides": fieldSides, "connections": fieldConnections,
	"bytes": fieldBytes, "reply": fieldReply,
}

const ends = fieldSource | fieldDestination

// readFast reads a line as package encoding/json writes it: without blanks between values. It is not ok for any other.
func (r *lineReader) readFast(line []byte) (out record, ok bool) {
	if len(line) < 2 || line[0] != '{' {
		return out, false
	}
	rest, seen := line[1:], 0
	for {
		var name, value []byte
		if name, rest, ok = cutString(rest); !ok || len(rest) == 0 || rest[0] != ':' {
			return out, false
		}
		if value, rest, ok = cutValue(rest[1:]); !ok || len(rest) == 0 {
			return out, false
		}
		field := fields[string(name)]
		if field == 0 || seen&field != 0 || !r.set(&out, field, value) {
			return out, false
		}
		seen |= field
		next := rest[0]
		rest = rest[1:]
		switch {
		case next == ',':
		case next == '}' && len(rest) == 0:
			return out, seen&ends == ends
		default:
			return out, false
		}
	}
}

// set a field.
func (r *lineReader) set(out *record, field int, value []byte) (ok bool) {
	switch field {
	case fieldFirst:
		return out.first.UnmarshalJSON(value) == nil && value[0] == '"'
	case fieldLast:
		return out.last.UnmarshalJSON(value) == nil && value[0] == '"'
	case fieldSource:
		out.source, ok = r.end(value)
		return ok
	case fieldDestination:
		out.destination, ok = r.end(value)
		return ok
	case fieldProtocol:
		out.protocol, ok = r.word(value)
		return ok
	case fieldVerdict:
		var word string
		word, ok = r.word(value)
		out.verdict = observerapi.Verdict(word)
		return ok
	case fieldService, fieldSides:
		_, ok = r.word(value)
		return ok
	case fieldPort:
		n, ok := number(value)
		out.port = uint16(n)
		return ok && n <= 65535
	case fieldConnections:
		out.connections, ok = number(value)
		return ok
	case fieldBytes:
		_, ok = number(value)
		return ok
	case fieldReply:
		out.reply = string(value) == "true"
		return out.reply || string(value) == "false"
	case fieldEgress, fieldIngress:
		return r.check(value)
	}
	return false
}

// end of a flow, parsed once for each text.
func (r *lineReader) end(text []byte) (*end, bool) {
	if e := r.ends[string(text)]; e != nil {
		return e, true
	}
	if len(text) == 0 || text[0] != '{' {
		return nil, false
	}
	var e observerapi.End
	if json.Unmarshal(text, &e) != nil {
		return nil, false
	}
	if len(r.ends) >= maxCached {
		clear(r.ends)
	}
	out := r.judge.newEnd(e)
	out.text = string(text)
	r.ends[out.text] = out
	return out, true
}

// check that a text is a decision, once for each text.
func (r *lineReader) check(text []byte) bool {
	if _, ok := r.checked[string(text)]; ok {
		return true
	}
	var d *observerapi.Decision
	if json.Unmarshal(text, &d) != nil {
		return false
	}
	if len(r.checked) >= maxCached {
		clear(r.checked)
	}
	r.checked[string(text)] = struct{}{}
	return true
}

// word reads a string without escapes. Each is in memory once.
func (r *lineReader) word(value []byte) (string, bool) {
	text, rest, ok := cutString(value)
	if !ok || len(rest) > 0 {
		return "", false
	}
	if w, ok := r.words[string(text)]; ok {
		return w, true
	}
	if len(r.words) >= maxCached {
		clear(r.words)
	}
	w := string(text)
	r.words[w] = w
	return w, true
}

// number reads an unsigned integer.
func number(value []byte) (n uint64, ok bool) {
	if len(value) == 0 || len(value) > 18 || value[0] == '0' && len(value) > 1 {
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}

// cutString cuts a string of printable ASCII without escapes from the begin of a text.
func cutString(text []byte) (value, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return nil, nil, false
	}
	for i := 1; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return text[1:i], text[i+1:], true
		case c == '\\' || c < ' ' || c > '~':
			return nil, nil, false
		}
	}
	return nil, nil, false
}

// cutValue cuts a value from the begin of a text. What is in an object is not checked.
func cutValue(text []byte) (value, rest []byte, ok bool) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n := stringEnd(text[i+1:])
			if n < 0 {
				return nil, nil, false
			}
			if i += n + 1; depth == 0 {
				return text[:i+1], text[i+1:], true
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return text[:i], text[i:], i > 0
			}
			if depth == 0 {
				return text[:i+1], text[i+1:], true
			}
		case ',':
			if depth == 0 {
				return text[:i], text[i:], i > 0
			}
		}
	}
	return nil, nil, false
}

// stringEnd is the index of the quote that ends a string, or -1.
func stringEnd(text []byte) int {
	for at := 0; ; {
		n := bytes.IndexByte(text[at:], '"')
		if n < 0 {
			return -1
		}
		at += n
		slashes := 0
		for i := at - 1; i >= 0 && text[i] == '\\'; i-- {
			slashes++
		}
		if slashes%2 == 0 {
			return at
		}
		at++
	}
}

// errLine is an error about a line.
type errLine struct {
	line int
	err  error
}

func (e *errLine) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *errLine) Unwrap() error { return e.err }
