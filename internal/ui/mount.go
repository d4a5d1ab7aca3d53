package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/httpserver"
)

// mostToken is the longest token: browsers keep cookies of 4 KiB, with their names and attributes.
const mostToken = 3800

// cookie of a mounted page. Browsers accept its prefix for Secure cookies only.
const tokenCookie = "__Secure-kidoban"

// Mounted is the map below a path of another server, for readers with tokens of the observer.
type Mounted struct {
	// URL at which browsers open the page, such as https://tools.example.com/kidoban/: it is https, as the cookie is the token.
	URL *url.URL
	// Reader returns whether the reader of a token may see all namespaces, ErrToken if the token is not valid, or why it cannot be known.
	Reader func(ctx context.Context, token string) (all bool, err error)
	// Ask the observer for an answer, as the reader of a token.
	Ask func(ctx context.Context, token, path string, query url.Values) (io.ReadCloser, error)
	// Options without Observer and InForce: Ask answers, and agents are not asked.
	Options Options
}

// ErrToken is the error of a Reader whose token is not valid.
var ErrToken = errors.New("enter a valid token for the observer")

// ParseURL checks the address at which browsers open a mounted page.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q is not a URL: %w", text, err)
	case u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%q is not an https URL such as https://tools.example.com/kidoban/", text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("%q has more than a host and a path", text)
	case strings.Trim(u.Path, "/") == "", strings.HasPrefix(u.Path, "/v1/"):
		return nil, fmt.Errorf("%q needs a path of its own, such as /kidoban/", text)
	}
	u.Path = "/" + strings.Trim(u.Path, "/") + "/"
	return u, nil
}

// reader of a mounted page, which the context of a request has.
type reader struct {
	token string
	// all is set if it may see all namespaces.
	all bool
}

type readerKey struct{}

// Limits of a request: to send its body, and to read the answer.
const (
	bodyTime   = 10 * time.Second
	answerRead = 2 * time.Minute
)

// Handler of the requests below the URL's path. Only readers of all namespaces see the map: policies of one namespace do not say what may talk.
// Flows and hits are those that the reader may see.
func (m Mounted) Handler() http.Handler {
	o := m.Options
	o.Observer = func(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
		r, _ := ctx.Value(readerKey{}).(reader)
		return m.Ask(ctx, r.token, path, query)
	}
	s := &Server{options: o, mounted: true}
	mux := http.NewServeMux()
	mux.Handle("GET /", page())
	mux.HandleFunc("POST /api/token", m.token)
	for pattern, handler := range s.api() {
		mux.Handle(pattern, m.known(handler, !ofReader[pattern]))
	}
	inside := http.StripPrefix(strings.TrimSuffix(m.URL.Path, "/"), mux)
	without := httpserver.WithoutBody(inside)
	return fromPage(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		_ = connection.SetWriteDeadline(time.Now().Add(answerRead))
		switch {
		case r.URL.Path+"/" == m.URL.Path: // the page's addresses are relative
			http.Redirect(w, r, m.URL.Path, http.StatusSeeOther)
		case r.Method == http.MethodPost:
			_ = connection.SetReadDeadline(time.Now().Add(bodyTime))
			inside.ServeHTTP(w, r)
		default:
			without.ServeHTTP(w, r)
		}
	}), m.URL.Scheme, func(host string) bool { return host == m.URL.Host })
}

// ofReader are the questions whose answers the observer cuts down to what a reader may see.
var ofReader = map[string]bool{"GET /api/flows": true, "GET /api/flows/live": true, "GET /api/hits": true}

// known answers readers with a token; those of all namespaces only, where it has to be so.
func (m Mounted) known(next http.Handler, all bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := ""
		if c, err := r.Cookie(tokenCookie); err == nil {
			token = c.Value
		}
		seesAll, err := m.Reader(r.Context(), token)
		if err == nil && all && !seesAll {
			err = NoRights{errors.New("the map is for readers who may get flows.kidoban.dev in all namespaces; Flows shows those of your namespaces")}
		}
		if err != nil {
			answerError(w, readerError(err))
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), readerKey{}, reader{token, seesAll})))
	})
}

// readerError has the status for an error of Reader.
func readerError(err error) error {
	switch noRights := (NoRights{}); {
	case errors.Is(err, ErrToken):
		return failure{http.StatusUnauthorized, ErrToken.Error()}
	case errors.As(err, &noRights):
		return err
	}
	return failure{http.StatusServiceUnavailable, err.Error()}
}

// token exchanges a token, which is the body, for the cookie that has it. The cookie ends with the browser's session, and scripts cannot read it.
func (m Mounted) token(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, mostToken+1))
	token := strings.TrimSpace(string(body))
	switch {
	case err != nil:
		answerError(w, invalid(err))
		return
	case len(body) > mostToken:
		answerError(w, failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("the token is longer than the %d bytes that a cookie holds", mostToken)})
		return
	}
	if _, err := m.Reader(r.Context(), token); err != nil {
		answerError(w, readerError(err))
		return
	}
	http.SetCookie(w, &http.Cookie{Name: tokenCookie, Value: token, Path: m.URL.Path, Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}") // a browser that has gone needs no answer
}
