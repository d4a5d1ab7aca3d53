package httpserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

const (
	// reviewsInFlight is how many questions to the API server wait for an answer. Any client can make a server ask.
	reviewsInFlight = 8
	// reviewTime limits one question.
	reviewTime = 5 * time.Second
	// allowedFor is how long an allowed request need not be asked about again, and the time after which a revoked right ends.
	allowedFor = time.Minute
	// allowedMost limits how many allowed requests are remembered.
	allowedMost = 256
)

// Guard passes on the requests of callers that show a bearer token, and that may get the path. It asks the API server about both (TokenReview,
// SubjectAccessReview).
type Guard struct {
	// Audience that a token must be issued for; empty: the API server's own.
	Audience string
	// TokenHint and AccessHint tell callers how to get a token and access.
	TokenHint, AccessHint string

	Tokens authenticationclient.TokenReviewInterface
	Access authorizationclient.SubjectAccessReviewInterface
	Log    logr.Logger
}

// guard is a Guard with what it remembers.
type guard struct {
	Guard
	slots chan struct{}

	mu      sync.Mutex
	allowed map[request]time.Time // until when
}

// request is what the API server was asked about. It holds no token.
type request struct {
	token        [sha256.Size]byte
	method, path string
}

var errBusy = errors.New("too many questions to the API server at once")

// Wrap guards a handler.
func (g Guard) Wrap(next http.Handler) http.Handler {
	s := &guard{Guard: g, slots: make(chan struct{}, reviewsInFlight), allowed: map[request]time.Time{}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if status, text := s.check(r); status != http.StatusOK {
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", "Bearer")
			}
			http.Error(w, text, status)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// check returns the status with which a request must be answered; 200: it may be passed on.
func (g *guard) check(r *http.Request) (status int, text string) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
		return http.StatusUnauthorized, g.TokenHint
	}
	key := request{sha256.Sum256([]byte(token)), r.Method, r.URL.Path}
	if g.isAllowed(key) {
		return http.StatusOK, ""
	}
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	default:
		return g.unavailable(errBusy)
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTime)
	defer cancel()
	user, err := g.authenticate(ctx, token)
	if err != nil {
		return g.unavailable(err)
	}
	if user == nil {
		return http.StatusUnauthorized, g.TokenHint
	}
	allowed, err := g.authorize(ctx, r, user)
	if err != nil {
		return g.unavailable(err)
	}
	if !allowed {
		return http.StatusForbidden, fmt.Sprintf("%s may not get %s: %s", user.Username, r.URL.Path, g.AccessHint)
	}
	g.remember(key)
	return http.StatusOK, ""
}

func (g *guard) unavailable(err error) (status int, text string) {
	g.Log.V(1).Info("Cannot ask the API server about a caller", "reason", err.Error())
	return http.StatusServiceUnavailable, "the API server cannot be asked about the token"
}

func (g *guard) isAllowed(key request) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.allowed[key])
}

func (g *guard) remember(key request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if len(g.allowed) >= allowedMost {
		for k, until := range g.allowed {
			if !now.Before(until) {
				delete(g.allowed, k)
			}
		}
	}
	if len(g.allowed) < allowedMost { // the others are asked about each time
		g.allowed[key] = now.Add(allowedFor)
	}
}

// authenticate returns the user that a token belongs to; nil: the token is not valid here.
func (g *guard) authenticate(ctx context.Context, token string) (*authenticationv1.UserInfo, error) {
	spec := authenticationv1.TokenReviewSpec{Token: token}
	if g.Audience != "" {
		spec.Audiences = []string{g.Audience}
	}
	review, err := g.Tokens.Create(ctx, &authenticationv1.TokenReview{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	if !review.Status.Authenticated {
		return nil, nil
	}
	// Without an audience in the answer the authenticator does not check audiences, so the token is the API server's.
	if g.Audience != "" && !slices.Contains(review.Status.Audiences, g.Audience) {
		return nil, nil
	}
	return &review.Status.User, nil
}

func (g *guard) authorize(ctx context.Context, r *http.Request, user *authenticationv1.UserInfo) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := g.Access.Create(ctx, &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, UID: user.UID, Groups: user.Groups, Extra: extra,
			NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: r.URL.Path, Verb: strings.ToLower(r.Method)},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	return review.Status.Allowed, nil
}
