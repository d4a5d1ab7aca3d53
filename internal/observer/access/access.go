// Package access decides what a reader may see: the flows of namespaces in which the user of its token may get
// flows.kidoban.dev. It asks the API server, for a short time once.
package access

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// Group and Resource of what a reader may get: there are no such objects, only the right.
const (
	Group    = "kidoban.dev"
	Resource = "flows"
)

const (
	// remembered is how long an answer of the API server counts, and the time after which a revoked right ends.
	remembered = 15 * time.Second
	// reviewTime limits one question.
	reviewTime = 5 * time.Second
	// reviewsInFlight is how many questions wait for an answer. Any client can make the observer ask.
	reviewsInFlight = 8
	// maxRemembered bounds the users and the answers that are remembered. Beyond it all are forgotten.
	maxUsers, maxAnswers = 512, 65536
	// maxToken is the size of the largest token that is looked at.
	maxToken = 8 << 10
)

// Errors of a Guard.
var (
	ErrToken       = errors.New("a token is needed: kubectl create token SERVICEACCOUNT --audience=kidoban-observer")
	ErrUnavailable = errors.New("the API server cannot be asked about the token at the moment")
)

// Guard makes readers of tokens.
type Guard struct {
	// Audience that a token must be issued for. The API server accepts no token with it, so a token that was stolen here is of no use there.
	Audience string
	Tokens   authenticationclient.TokenReviewInterface
	Access   authorizationclient.SubjectAccessReviewInterface

	once  sync.Once
	slots chan struct{}

	mu      sync.Mutex
	users   map[[sha256.Size]byte]user
	answers map[question]answer
}

type user struct {
	info  authenticationv1.UserInfo
	until time.Time
}

type question struct{ uid, name, groups, extra, namespace string }

type answer struct {
	allowed bool
	until   time.Time
}

// Reader is the user of a token.
type Reader struct {
	guard *Guard
	info  authenticationv1.UserInfo
}

// Reader returns the user of a token, ErrToken if there is none, or ErrUnavailable.
func (g *Guard) Reader(ctx context.Context, token string) (*Reader, error) {
	g.once.Do(func() {
		g.slots, g.users, g.answers = make(chan struct{}, reviewsInFlight), map[[sha256.Size]byte]user{}, map[question]answer{}
	})
	if token == "" || len(token) > maxToken {
		return nil, ErrToken
	}
	key := sha256.Sum256([]byte(token))
	g.mu.Lock()
	known, ok := g.users[key]
	g.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return &Reader{g, known.info}, nil
	}
	var review *authenticationv1.TokenReview
	err := g.ask(ctx, func(ctx context.Context) (err error) {
		review, err = g.Tokens.Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{g.Audience}},
		}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return nil, err
	}
	// Without an audience in the answer the authenticator does not check audiences, so the token is the API server's.
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, g.Audience) {
		return nil, ErrToken
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.users) >= maxUsers {
		clear(g.users)
	}
	g.users[key] = user{review.Status.User, time.Now().Add(remembered)}
	return &Reader{g, review.Status.User}, nil
}

// ask asks the API server, unless too many questions wait already.
func (g *Guard) ask(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, reviewTime)
	defer cancel()
	select {
	case g.slots <- struct{}{}:
		defer func() { <-g.slots }()
	case <-ctx.Done():
		return ErrUnavailable
	}
	if err := do(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// CanRead reports whether the reader may see the flows of a namespace; "" stands for all namespaces.
func (r *Reader) CanRead(ctx context.Context, namespace string) (bool, error) {
	g := r.guard
	q := question{r.info.UID, r.info.Username, fmt.Sprintf("%q", r.info.Groups), fmt.Sprintf("%q", r.info.Extra), namespace}
	g.mu.Lock()
	known, ok := g.answers[q]
	g.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.allowed, nil
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range r.info.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	var review *authorizationv1.SubjectAccessReview
	err := g.ask(ctx, func(ctx context.Context) (err error) {
		review, err = g.Access.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: r.info.Username, UID: r.info.UID, Groups: r.info.Groups, Extra: extra,
			ResourceAttributes: &authorizationv1.ResourceAttributes{Group: Group, Resource: Resource, Verb: "get", Namespace: namespace},
		}}, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return false, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.answers) >= maxAnswers {
		clear(g.answers)
	}
	g.answers[q] = answer{review.Status.Allowed, time.Now().Add(remembered)}
	return review.Status.Allowed, nil
}
