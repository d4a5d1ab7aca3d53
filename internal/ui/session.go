package ui

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"sync/atomic"
)

// session lets one browser in: the first that shows the secret, which is part of the address that the command prints. It gets a cookie for
// it, so that the secret leaves the address bar and the history at once.
type session struct {
	secret, cookie string
	// name of the cookie. Browsers send cookies to all ports of a host, so that two maps need two names.
	name string
	used atomic.Bool
}

func newSession(port string) *session {
	return &session{secret: random(), cookie: random(), name: "kidoban-" + port}
}

// random is 256 bits, as text for a URL.
func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// open exchanges the secret for the cookie.
func (s *session) open(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.holds(r):
	case !equal(r.URL.Query().Get("secret"), s.secret):
		http.Error(w, "This address is not complete. Open the one that kubectl kidoban ui printed.", http.StatusForbidden)
		return
	case !s.used.CompareAndSwap(false, true):
		http.Error(w, "This address was used before, and works once. Run kubectl kidoban ui again.", http.StatusForbidden)
		return
	default:
		http.SetCookie(w, &http.Cookie{Name: s.name, Value: s.cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode})
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// holds reports whether a request has the cookie.
func (s *session) holds(r *http.Request) bool {
	c, err := r.Cookie(s.name)
	return err == nil && equal(c.Value, s.cookie)
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
