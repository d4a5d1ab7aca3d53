package serve

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"testing"
)

func TestAskReadsAnAnswerAsItIsWritten(t *testing.T) {
	more := make(chan struct{})
	ended := make(chan struct{})
	ask := Ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		if TokenOf(r.Header.Get("Authorization")) != "secret" || r.URL.Path != "/v1/flows" || r.URL.Query().Get("follow") != "true" || r.ContentLength != 0 {
			t.Errorf("asked with %v for %s", r.Header, r.URL)
		}
		_ = http.NewResponseController(w).Flush() // an answer without a line yet
		<-more
		_, _ = io.WriteString(w, "first\n")
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	body, err := ask(ctx, "secret", "/v1/flows", url.Values{"follow": {"true"}})
	if err != nil {
		t.Fatal(err)
	}
	close(more)
	line := make([]byte, 6)
	if _, err := io.ReadFull(body, line); err != nil || string(line) != "first\n" {
		t.Errorf("%q, %v", line, err)
	}
	cancel()
	if rest, err := io.ReadAll(body); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	<-ended
}

func TestAskReturnsErrors(t *testing.T) {
	ask := Ask(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a token is needed", http.StatusUnauthorized)
	}))
	_, err := ask(t.Context(), "", "/v1/flows", nil)
	if status := (*StatusError)(nil); !errors.As(err, &status) || status.Code != http.StatusUnauthorized || status.Text != "a token is needed" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	silent := Ask(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	if body, err := silent(ctx, "", "/v1/flows", nil); err == nil {
		_ = body.Close()
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
