package serve

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// StatusError is an answer of the API other than 200.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string { return e.Text }

// maxError is how much of an error's text is read.
const maxError = 1 << 10

// Ask returns a function that asks the API's handler within the process, with the rights of a token. The answer ends with the context.
func Ask(api http.Handler) func(ctx context.Context, token, path string, query url.Values) (io.ReadCloser, error) {
	return func(ctx context.Context, token, path string, query url.Values) (io.ReadCloser, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, (&url.URL{Path: path, RawQuery: query.Encode()}).String(), nil)
		if err != nil {
			return nil, fmt.Errorf("ask the observer: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		body, out := io.Pipe()
		answer := &piped{header: http.Header{}, out: out, status: make(chan int, 1)}
		go func() {
			api.ServeHTTP(answer, r)
			answer.WriteHeader(http.StatusOK)
			_ = out.Close()
		}()
		select {
		case code := <-answer.status:
			if code == http.StatusOK {
				return body, nil
			}
			text, _ := io.ReadAll(io.LimitReader(body, maxError))
			_ = body.Close()
			return nil, &StatusError{code, strings.TrimSpace(string(text))}
		case <-ctx.Done():
			_ = body.Close()
			return nil, ctx.Err()
		}
	}
}

// piped is an answer that is read as it is written.
type piped struct {
	header http.Header
	out    *io.PipeWriter
	once   sync.Once
	status chan int
}

func (p *piped) Header() http.Header { return p.header }

func (p *piped) WriteHeader(code int) { p.once.Do(func() { p.status <- code }) }

func (p *piped) Write(text []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	return p.out.Write(text)
}

// Flush has nothing to send: a pipe holds nothing back.
func (p *piped) Flush() { p.WriteHeader(http.StatusOK) }
