package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// HTTPOptions say where lines go by HTTP, and how.
type HTTPOptions struct {
	// Name of the sink in metrics and logs.
	Name string
	// URL that takes POST requests.
	URL string
	// Header of each request. It says what the body is.
	Header http.Header
	// Body of a request with some lines.
	Body func(lines [][]byte) ([]byte, error)
	// Refused reads from the answer of a server that took a request how many of its lines it left out.
	Refused func(answer []byte) int
}

var httpLimits = limits{lines: 2000, bytes: 1 << 20, linger: time.Second}

const (
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
	// quoted is how much of an answer an error has.
	quoted = 200
)

type toHTTP struct {
	opts   HTTPOptions
	client http.Client
}

// HTTP sends lines to a server.
func HTTP(opts HTTPOptions) Sink {
	return &toHTTP{opts: opts, client: http.Client{Timeout: callTimeout}}
}

func (h *toHTTP) Name() string   { return h.opts.Name }
func (h *toHTTP) limits() limits { return httpLimits }

func (h *toHTTP) close() error {
	h.client.CloseIdleConnections()
	return nil
}

func (h *toHTTP) deliver(ctx context.Context, lines []line) (result, error) {
	texts := make([][]byte, len(lines))
	for i, l := range lines {
		texts[i] = l.text
	}
	body, err := h.opts.Body(texts)
	if err != nil {
		return result{}, refusedError{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.opts.URL, bytes.NewReader(body))
	if err != nil {
		return result{}, refusedError{err}
	}
	req.Header = h.opts.Header.Clone()
	resp, err := h.client.Do(req)
	if err != nil {
		return result{}, err
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return result{}, err
	}
	if resp.StatusCode/100 == 2 {
		return result{refused: min(h.opts.Refused(answer), len(lines))}, nil
	}
	err = fmt.Errorf("POST %s: %s: %.*s", req.URL.Redacted(), resp.Status, quoted, answer)
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return result{}, err
	}
	return result{}, refusedError{err}
}
