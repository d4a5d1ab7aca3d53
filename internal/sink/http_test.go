package sink

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// post delivers two lines to a server that answers with a status and a text.
func post(t *testing.T, code int, text string) (string, result, error) {
	t.Helper()
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type") + " " + string(body)
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}))
	defer server.Close()
	s := HTTP(HTTPOptions{
		Name: "test", URL: server.URL + "/v1/logs", Header: http.Header{"Content-Type": {"text/x"}},
		Body:    func(lines [][]byte) ([]byte, error) { return bytes.Join(lines, []byte("+")), nil },
		Refused: func(answer []byte) int { return len(answer) },
	})
	res, err := s.deliver(context.Background(), []line{{text: []byte("one")}, {text: []byte("two")}})
	if err := s.close(); err != nil {
		t.Error(err)
	}
	return got, res, err
}

func TestLinesGoByHTTP(t *testing.T) {
	got, res, err := post(t, http.StatusOK, "")
	if want := "POST /v1/logs text/x one+two"; got != want || res.refused != 0 || err != nil {
		t.Errorf("got %q, %v, %v; want %q", got, res, err, want)
	}
	if _, res, err := post(t, http.StatusAccepted, "x"); res.refused != 1 || err != nil {
		t.Errorf("one line left out: %v, %v", res, err)
	}
	if _, res, err := post(t, http.StatusOK, "xxxxx"); res.refused != 2 || err != nil {
		t.Errorf("more left out than sent: %v, %v", res, err)
	}
}

func TestWhichAnswersAreTriedAgain(t *testing.T) {
	for code, again := range map[int]bool{
		http.StatusTooManyRequests: true, http.StatusBadGateway: true, http.StatusServiceUnavailable: true, http.StatusGatewayTimeout: true,
		http.StatusBadRequest: false, http.StatusUnauthorized: false, http.StatusInternalServerError: false, http.StatusNotFound: false,
	} {
		_, _, err := post(t, code, "because")
		var refused refusedError
		if err == nil || errors.As(err, &refused) == again || !strings.Contains(err.Error(), "because") {
			t.Errorf("%d: got %v; is to be tried again: %t", code, err, again)
		}
	}
}

func TestAServerThatIsAwayIsTriedAgain(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	s := HTTP(HTTPOptions{URL: server.URL, Body: func([][]byte) ([]byte, error) { return nil, nil }})
	_, err := s.deliver(context.Background(), []line{{}})
	var refused refusedError
	if err == nil || errors.As(err, &refused) {
		t.Errorf("got %v, want an error that is tried again", err)
	}
}
