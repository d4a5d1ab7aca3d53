package ui

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// mounted below https://tools.example.com/net/kidoban/, with a reader of everything and one of a namespace.
func mounted(t *testing.T) func(method, path, body string, headers ...string) *http.Response {
	t.Helper()
	at, err := ParseURL("https://tools.example.com/net/kidoban")
	if err != nil {
		t.Fatal(err)
	}
	c := readShop(t)
	handler := Mounted{
		URL: at,
		Reader: func(_ context.Context, token string) (bool, error) {
			switch token {
			case "all", "one":
				return token == "all", nil
			case "later":
				return false, errors.New("the API server is away")
			}
			return false, ErrToken
		},
		Ask: func(_ context.Context, token, _ string, _ url.Values) (io.ReadCloser, error) {
			return answer(t, observerapi.FlowList{Hidden: []string{"asked as " + token}, Flows: []observerapi.Flow{{Source: end("shop", "Deployment", "frontend")}}}), nil
		},
		Options: Options{Name: "test", Live: true, Parse: parse, Read: func(context.Context) (*model.Cluster, error) { return c, nil }},
	}.Handler()
	return func(method, path, body string, headers ...string) *http.Response {
		var text io.Reader
		if body != "" {
			text = strings.NewReader(body)
		}
		r := httptest.NewRequest(method, path, text)
		r.Host = "tools.example.com"
		for i := 0; i+1 < len(headers); i += 2 {
			switch headers[i] {
			case "Host":
				r.Host = headers[i+1]
			case "token":
				r.AddCookie(&http.Cookie{Name: tokenCookie, Value: headers[i+1]})
			default:
				r.Header.Set(headers[i], headers[i+1])
			}
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Result()
	}
}

const own = "https://tools.example.com"

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestATokenIsEnteredOnce(t *testing.T) {
	ask := mounted(t)
	for path, want := range map[string]int{"/net/kidoban/": 200, "/net/kidoban/app.js": 200, "/net/kidoban": 303, "/net/kidoban/api/graph": 401, "/net/kidoban/api/flows": 401, "/app.js": 404, "/net/kidoban/open": 404} {
		r := ask("GET", path, "")
		if r.StatusCode != want || r.Header.Get("Content-Security-Policy") != contentSecurityPolicy {
			t.Errorf("%s without a token: %d, want %d", path, r.StatusCode, want)
		}
	}
	for token, want := range map[string]int{"wrong": 401, "later": 503, strings.Repeat("a", mostToken+1): 413} {
		if r := ask("POST", "/net/kidoban/api/token", token, "Origin", own); r.StatusCode != want || len(r.Cookies()) != 0 {
			t.Errorf("token %.9s: %d %v", token, r.StatusCode, r.Cookies())
		}
	}
	r := ask("POST", "/net/kidoban/api/token", " all\n", "Origin", own)
	if r.StatusCode != http.StatusOK || len(r.Cookies()) != 1 {
		t.Fatalf("%d %v", r.StatusCode, r.Cookies())
	}
	c := r.Cookies()[0]
	if c.Value != "all" || c.Path != "/net/kidoban/" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie: %v", c)
	}
	if r := ask("GET", "/net/kidoban/api/recommend?namespace=shop", "", "token", "all"); r.StatusCode != http.StatusNotFound {
		t.Errorf("recommend: %d", r.StatusCode)
	}
	for _, path := range []string{"graph", "policies", "flows", "hits"} {
		if r := ask("GET", "/net/kidoban/api/"+path, "", "token", "all"); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, r.StatusCode, body(t, r))
		}
	}
	if r := ask("GET", "/net/kidoban/api/graph?token=all", ""); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("a token in the address: %d", r.StatusCode)
	}
}

// A reader of some namespaces sees the flows of these, and no map: it has the policies of all.
func TestAReaderOfOneNamespace(t *testing.T) {
	ask := mounted(t)
	for _, path := range []string{"graph", "policies", "policy?id=NetworkPolicy+shop/backend", "edge?from=shop/frontend&to=shop/backend"} {
		r := ask("GET", "/net/kidoban/api/"+path, "", "token", "one")
		if text := body(t, r); r.StatusCode != http.StatusForbidden || !strings.Contains(text, `"rights":true`) {
			t.Errorf("%s: %d %s", path, r.StatusCode, text)
		}
	}
	if r := ask("POST", "/net/kidoban/api/whatif", twoPods, "token", "one", "Origin", own); r.StatusCode != http.StatusForbidden {
		t.Errorf("what if: %d", r.StatusCode)
	}
	for token, from := range map[string]bool{"one": false, "all": true} {
		text := body(t, ask("GET", "/net/kidoban/api/flows", "", "token", token))
		if !strings.Contains(text, "asked as "+token) || strings.Contains(text, `"from":"shop/frontend"`) != from {
			t.Errorf("flows of %s: %s", token, text)
		}
	}
}

func TestOtherSitesGetNothingOfAMountedPage(t *testing.T) {
	ask := mounted(t)
	for name, tc := range map[string]struct {
		method  string
		headers []string
		want    int
	}{
		"the page itself":              {"GET", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		"a name that leads here":       {"GET", []string{"Host", "evil.example"}, 403},
		"another site's script":        {"GET", []string{"Origin", "https://evil.example"}, 403},
		"the same host without TLS":    {"GET", []string{"Origin", "http://tools.example.com"}, 403},
		"another site's image":         {"GET", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		"a question without an origin": {"POST", nil, 403},
		"a question of the page":       {"POST", []string{"Origin", own}, 200},
		"a body where there is none":   {"GET", []string{"body", "x"}, 413},
	} {
		t.Run(name, func(t *testing.T) {
			path, text := "/net/kidoban/api/graph", ""
			if tc.method == "POST" {
				path, text = "/net/kidoban/api/whatif", twoPods
			}
			if len(tc.headers) > 0 && tc.headers[0] == "body" {
				text = tc.headers[1]
			}
			if r := ask(tc.method, path, text, append(tc.headers, "token", "all")...); r.StatusCode != tc.want {
				t.Errorf("%d, want %d: %s", r.StatusCode, tc.want, body(t, r))
			}
		})
	}
}

func TestParseURL(t *testing.T) {
	for _, text := range []string{"http://tools.example.com/kidoban/", "https://tools.example.com", "https://tools.example.com/", "https://tools.example.com/v1/flows", "/kidoban/", "https://a:b@tools.example.com/x", "https://tools.example.com/x?y"} {
		if u, err := ParseURL(text); err == nil {
			t.Errorf("%s is accepted as %s", text, u)
		}
	}
}
