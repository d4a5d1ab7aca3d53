package serve

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// Guard lets those through who show a token that was issued for agents (agentapi.Audience) and who may get the path, by what the API
// server says (TokenReview, SubjectAccessReview). Tokens for the API server itself are refused: they should not be sent here.
type Guard struct {
	Tokens authenticationclient.TokenReviewInterface
	Access authorizationclient.SubjectAccessReviewInterface
	Log    logr.Logger
}

// Wrap guards a handler.
func (g Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, err := g.authenticate(r)
		if err != nil {
			g.unavailable(w, err)
			return
		}
		if user == nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, fmt.Sprintf("a bearer token for the audience %s is needed: kubectl create token %s --audience=%s", agentapi.Audience, agentapi.Viewer, agentapi.Audience),
				http.StatusUnauthorized)
			return
		}
		allowed, err := g.authorize(r, user)
		if err != nil {
			g.unavailable(w, err)
			return
		}
		if !allowed {
			http.Error(w, fmt.Sprintf("%s may not get %s: bind the ClusterRole %s", user.Username, r.URL.Path, agentapi.Viewer), http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (g Guard) unavailable(w http.ResponseWriter, err error) {
	g.Log.V(1).Info("Cannot ask the API server about a caller", "reason", err.Error())
	http.Error(w, "the API server cannot be asked about the token", http.StatusServiceUnavailable)
}

// authenticate says who shows a token; nil: nobody that is known.
func (g Guard) authenticate(r *http.Request) (*authenticationv1.UserInfo, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return nil, nil
	}
	review, err := g.Tokens.Create(r.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: strings.TrimSpace(token), Audiences: []string{agentapi.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	// No audience in the answer: an authenticator that knows of none, so the token is the API server's.
	if !review.Status.Authenticated || !slices.Contains(review.Status.Audiences, agentapi.Audience) {
		return nil, nil
	}
	return &review.Status.User, nil
}

func (g Guard) authorize(r *http.Request, user *authenticationv1.UserInfo) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range user.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := g.Access.Create(r.Context(), &authorizationv1.SubjectAccessReview{
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
