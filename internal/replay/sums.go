package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// sum adds up records of a flow.
type sum struct {
	records, connections uint64
	first, last          int64
}

func (s *sum) plus(t *sum) {
	s.records += t.records
	s.connections += t.connections
	if t.first != 0 && (s.first == 0 || t.first < s.first) {
		s.first = t.first
	}
	s.last = max(s.last, t.last)
}

func (s *sum) add(r *row) {
	s.plus(&sum{1, r.connections, r.first, r.last})
}

func (s *sum) count() Count {
	return Count{Records: s.records, Connections: s.connections, First: timeOf(s.first), Last: timeOf(s.last)}
}

// chunk is records of a recording, as complete lines.
type chunk struct {
	text []byte
	line int // number of the first line
	// flows is how many flows are known before it.
	flows int
}

const chunkSize = 1 << 20

var (
	// errCutOff is the error for a recording without an end.
	errCutOff = errors.New("the recording is cut off: its last line, which counts the records, is missing; record it again")
	errBehind = errors.New("there are lines behind the end of the recording: it was written to twice; record it again")
)

// errLine is an error about a line.
type errLine struct {
	line int
	err  error
}

func (e *errLine) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *errLine) Unwrap() error { return e.err }

// sums of the flows by their numbers, without records that ended before a time. It reads the recording to its end, on all CPUs.
func (r *Recording) sums(ctx context.Context, since time.Time) ([]sum, error) {
	from := nanosOf(since)
	if r.in == nil {
		return r.sumsOf(r.inline, from)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan chunk, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []sum
	var records uint64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			own, n, err := sumChunks(chunks, from)
			if err != nil {
				cancel(err)
			}
			mu.Lock()
			defer mu.Unlock()
			records += n
			all = append(all, make([]sum, max(0, len(own)-len(all)))...)
			for i := range own {
				all[i].plus(&own[i])
			}
		})
	}
	want, err := r.cut(ctx, chunks)
	close(chunks)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, err
	}
	if want != records {
		return nil, fmt.Errorf("the recording has %d records, and its last line counts %d: record it again", records, want)
	}
	return all, nil
}

// sumsOf flows that are in memory.
func (r *Recording) sumsOf(flows []observerapi.Flow, from int64) (out []sum, err error) {
	for i := range flows {
		f := &flows[i]
		is := flow{Protocol: f.Protocol, Port: f.Port, Verdict: f.Verdict, Reply: f.Reply}
		if is.Source, _, err = r.known.addEnd(&f.Source); err != nil {
			return nil, err
		}
		if is.Destination, _, err = r.known.addEnd(&f.Destination); err != nil {
			return nil, err
		}
		number, isNew := r.known.addFlow(is)
		if isNew {
			out = append(out, sum{})
		}
		if last := nanosOf(f.Last); last >= from {
			out[number].add(&row{number, nanosOf(f.First), last, f.Connections})
		}
	}
	return out, nil
}

// sumChunks adds up the records that ended at a time or later. records counts all.
func sumChunks(chunks <-chan chunk, from int64) (out []sum, records uint64, err error) {
	var r row
	for c := range chunks {
		out = append(out, make([]sum, max(0, c.flows-len(out)))...)
		line := c.line - 1
		for text := c.text; len(text) > 0; {
			end := bytes.IndexByte(text, '\n')
			if end < 0 {
				end = len(text)
			}
			line++
			if end > 0 {
				if err := r.read(text[:end], c.flows); err != nil {
					return nil, 0, &errLine{line, err}
				}
				records++
				if r.last >= from {
					out[r.flow].add(&r)
				}
			}
			text = text[min(end+1, len(text)):]
		}
	}
	return out, records, nil
}

// line is one of a recording that is not a record: it defines an end or a flow, or it is the last.
type line struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Records    uint64           `json:"records"`
	End        *int             `json:"end"`
	Value      *observerapi.End `json:"value"`
	Flow       *int             `json:"flow"`
	flow
}

// cut what is left of the recording into chunks, read the lines between them, and return the number of records that the last line gives.
func (r *Recording) cut(ctx context.Context, chunks chan<- chunk) (records uint64, err error) {
	var rest []byte
	for ended := false; !ended; {
		text := append(make([]byte, 0, len(rest)+chunkSize), rest...)
		n, err := io.ReadFull(r.in, text[len(rest):cap(text)])
		text = text[:len(rest)+n]
		ended = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return 0, err
		}
		complete := bytes.LastIndexByte(text, '\n') + 1
		if ended {
			complete = len(text)
		}
		text, rest = text[:complete], text[complete:]
		if len(rest) > maxLine {
			return 0, fmt.Errorf("line %d is longer than %d bytes", r.line+1+bytes.Count(text, []byte("\n")), maxLine)
		}
		for len(text) > 0 {
			if text[0] == '{' {
				end := bytes.IndexByte(text, '\n') + 1
				if end == 0 {
					end = len(text)
				}
				r.line++
				last, err := r.define(text[:end])
				if err != nil {
					return 0, &errLine{r.line, err}
				}
				if text = text[end:]; last != nil {
					return last.Records, r.nothingBehind(text, rest)
				}
				continue
			}
			end := bytes.Index(text, []byte("\n{")) + 1
			if end == 0 {
				end = len(text)
			}
			select {
			case chunks <- chunk{text[:end], r.line + 1, len(r.known.flows)}:
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
			r.line += bytes.Count(text[:end], []byte("\n"))
			text = text[end:]
		}
	}
	return 0, errCutOff
}

// define what a line defines. The last line of a recording is returned.
func (r *Recording) define(text []byte) (last *line, err error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	if l.APIVersion == observerapi.APIVersion && l.Kind == KindEnd {
		return &l, nil
	}
	return nil, r.known.read(&l)
}

// nothingBehind is an error if something other than blanks follows the end of a recording.
func (r *Recording) nothingBehind(read ...[]byte) error {
	read = append(read, nil)
	for _, text := range read[:len(read)-1] {
		if len(bytes.TrimSpace(text)) > 0 {
			return errBehind
		}
	}
	if more, err := io.ReadAll(io.LimitReader(r.in, 1)); err != nil || len(more) > 0 {
		return errBehind
	}
	return nil
}
