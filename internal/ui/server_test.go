package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// read manifests of a cluster.
func read(t *testing.T, text string) *model.Cluster {
	t.Helper()
	c, err := parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(text []byte) (*model.Cluster, error) {
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("manifests", bytes.NewReader(text)); err != nil {
		return nil, err
	}
	return m.Cluster()
}

// serve a cluster, without a network.
func serve(t *testing.T, c *model.Cluster) *Server {
	t.Helper()
	s, err := Listen(t.Context(), 0, Options{Name: "test", Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return c, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.listener.Close() })
	return s
}

func (s *Server) request(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = s.listener.Addr().String()
	r.AddCookie(&http.Cookie{Name: s.session.name, Value: s.session.cookie})
	for i := 0; i+1 < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			r.Host = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// get an answer as JSON.
func get[T any](t *testing.T, s *Server, path string) T {
	t.Helper()
	var out T
	w := s.request("GET", path, "")
	if w.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.NewDecoder(w.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

const twoPods = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: c, ports: [{containerPort: 5432}]}]}}
`

func TestTheSecretWorksOnceAndIsExchangedForACookie(t *testing.T) {
	s := serve(t, read(t, twoPods))
	path := s.URL()[strings.Index(s.URL(), "/open"):]
	ask := func(path string, cookies ...*http.Cookie) *http.Response {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Host = s.listener.Addr().String()
		for _, c := range cookies {
			r.AddCookie(c)
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Result()
	}
	for _, path := range []string{"/", "/app.js", "/api/graph", "/open", "/open?secret=wrong"} {
		if got := ask(path); got.StatusCode != http.StatusForbidden {
			t.Errorf("%s without a cookie: %d", path, got.StatusCode)
		}
	}
	first := ask(path)
	if first.StatusCode != http.StatusSeeOther || first.Header.Get("Location") != "/" || len(first.Cookies()) != 1 {
		t.Fatalf("the address: %d %v", first.StatusCode, first.Header)
	}
	cookie := first.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || strings.Contains(path, cookie.Value) {
		t.Errorf("cookie: %v", cookie)
	}
	if got := ask("/api/graph", cookie); got.StatusCode != http.StatusOK {
		t.Errorf("with the cookie: %d", got.StatusCode)
	}
	if got := ask(path); got.StatusCode != http.StatusForbidden || len(got.Cookies()) != 0 {
		t.Errorf("the address in a second browser: %d", got.StatusCode)
	}
	if got := ask(path, cookie); got.StatusCode != http.StatusSeeOther {
		t.Errorf("the address again in the same browser: %d", got.StatusCode)
	}
}

func TestOtherSitesGetNothing(t *testing.T) {
	s := serve(t, read(t, twoPods))
	own := s.listener.Addr().String()
	for name, tc := range map[string]struct {
		method  string
		headers []string
		want    int
	}{
		"the page itself":               {"GET", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"a name that leads here":        {"GET", []string{"Host", "evil.example:80"}, 403},
		"the right host, another port":  {"GET", []string{"Host", "127.0.0.1:1"}, 403},
		"another site's script":         {"GET", []string{"Origin", "http://evil.example"}, 403},
		"another site's image":          {"GET", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"another port of this host":     {"GET", []string{"Sec-Fetch-Site", "same-site"}, 403},
		"a form of an unknown origin":   {"POST", []string{"Origin", "null"}, 403},
		"a question without an origin":  {"POST", nil, 403},
		"a question of the page itself": {"POST", []string{"Origin", "http://" + own}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			path := map[string]string{"GET": "/api/graph", "POST": "/api/whatif"}[tc.method]
			w := s.request(tc.method, path, twoPods, tc.headers...)
			if w.Code != tc.want {
				t.Errorf("%d, want %d: %s", w.Code, tc.want, w.Body)
			}
			if w.Header().Get("Content-Security-Policy") != contentSecurityPolicy || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers: %v", w.Header())
			}
		})
	}
}

func TestManifestsAreLimited(t *testing.T) {
	s := serve(t, read(t, twoPods))
	r := httptest.NewRequest(http.MethodPost, "/api/whatif", io.LimitReader(zeros{}, mostUploaded+1))
	r.Host = s.listener.Addr().String()
	r.AddCookie(&http.Cookie{Name: s.session.name, Value: s.session.cookie})
	r.Header.Set("Origin", "http://"+r.Host)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge || !strings.Contains(w.Body.String(), "larger than 8 MiB") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
