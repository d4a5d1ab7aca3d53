package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"github.com/kidoban/kidoban/internal/observerapi"
)

const chunkSize = 1 << 20

// chunk is some lines of a recording, all complete.
type chunk struct {
	text  []byte
	first int // number of the first line
}

// buffers that chunks were read into, to be used again.
var buffers = sync.Pool{New: func() any { return make([]byte, 0, 2*chunkSize) }}

// errCutOff is the error for a recording without an end.
var errCutOff = errors.New("the recording is cut off: its last line, which counts the flows, is missing; record it again")

var errBehind = errors.New("there are lines behind the end of the recording: it was written to twice; record it again")

// eachChunk hands the flows' lines to workers, one on each CPU, and the end's line to none. work is called once for each worker.
func (r *Recording) eachChunk(ctx context.Context, work func(chunks <-chan chunk) (flows uint64, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	chunks := make(chan chunk)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var flows uint64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			n, err := work(chunks)
			mu.Lock()
			defer mu.Unlock()
			if flows += n; err != nil {
				cancel(err)
			}
		})
	}
	want, err := r.cut(ctx, chunks)
	close(chunks)
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	if want != flows {
		return fmt.Errorf("the recording has %d flows, and its last line counts %d: record it again", flows, want)
	}
	return nil
}

// cut what is left of the recording into chunks, and return the number of flows that its end counts.
func (r *Recording) cut(ctx context.Context, chunks chan<- chunk) (flows uint64, err error) {
	var rest []byte
	for {
		buf := slices.Grow(buffers.Get().([]byte)[:0], len(rest)+chunkSize)[:len(rest)+chunkSize]
		copy(buf, rest)
		n, err := io.ReadFull(r.in, buf[len(rest):])
		buf = buf[:len(rest)+n]
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			return 0, err
		}
		at := bytes.LastIndexByte(buf, '\n') + 1
		if ended {
			at = len(buf)
		}
		rest = append(rest[:0], buf[at:]...) // a copy: workers give the buffer back
		buf = buf[:at]
		if len(rest) > maxLine {
			return 0, fmt.Errorf("line %d is longer than %d bytes", r.line+1+bytes.Count(buf, []byte("\n")), maxLine)
		}
		// a line that begins as the end does is the last one, or is one of a flow that readers will not understand
		last := bytes.LastIndexByte(bytes.TrimRight(buf, "\n"), '\n') + 1
		if end, ok := isEnd(bytes.TrimSpace(buf[last:])); ok {
			if len(rest) > 0 {
				return 0, errBehind
			}
			if !ended {
				if more, err := io.ReadAll(io.LimitReader(r.in, 1)); err != nil || len(more) > 0 {
					return 0, errBehind
				}
			}
			return end.Flows, send(ctx, chunks, chunk{buf[:last], r.line + 1})
		}
		first := r.line + 1
		r.line += bytes.Count(buf, []byte("\n"))
		if err := send(ctx, chunks, chunk{buf, first}); err != nil {
			return 0, err
		}
		if ended {
			return 0, errCutOff
		}
	}
}

func send(ctx context.Context, chunks chan<- chunk, c chunk) error {
	if len(c.text) == 0 {
		return nil
	}
	select {
	case chunks <- c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// each record of the recording, in no order. newWorker is called once for each of the workers, which do not share anything.
func (r *Recording) each(ctx context.Context, c *comparison, newWorker func(*Judge) func(*record)) error {
	if r.inline != nil {
		reader := newLineReader(c.newJudge())
		do := newWorker(reader.judge)
		for i := range r.inline {
			is := reader.recordOf(&r.inline[i])
			do(&is)
		}
		return nil
	}
	var mu sync.Mutex
	return r.eachChunk(ctx, func(chunks <-chan chunk) (flows uint64, err error) {
		reader := newLineReader(c.newJudge())
		mu.Lock()
		do := newWorker(reader.judge)
		mu.Unlock()
		for c := range chunks {
			line := c.first
			for text := range bytes.Lines(c.text) {
				if text = bytes.TrimSuffix(text, []byte("\n")); len(text) == 0 {
					line++
					continue
				}
				is, failed := reader.read(text)
				if _, isEnd := isEnd(text); isEnd && failed != nil {
					return flows, errBehind
				}
				if failed != nil {
					return flows, &errLine{line, failed}
				}
				do(&is)
				flows++
				line++
			}
			buffers.Put(c.text[:0]) //nolint:staticcheck // a slice's header is small beside what it saves
		}
		return flows, nil
	})
}

// Flows calls yield for each flow of the recording, in its order.
func (r *Recording) Flows(yield func(*observerapi.Flow) error) error {
	if r.inline != nil {
		for i := range r.inline {
			if err := yield(&r.inline[i]); err != nil {
				return err
			}
		}
		return nil
	}
	for n := uint64(0); ; {
		text, err := r.next()
		if errors.Is(err, io.EOF) {
			return errCutOff
		}
		if err != nil {
			return err
		}
		if len(text) == 0 {
			continue
		}
		if end, ok := isEnd(text); ok {
			if end.Flows != n {
				return fmt.Errorf("the recording has %d flows, and its last line counts %d: record it again", n, end.Flows)
			}
			return nil
		}
		f, err := parse(text)
		if err != nil {
			return &errLine{r.line, err}
		}
		if err := yield(f); err != nil {
			return err
		}
		n++
	}
}
