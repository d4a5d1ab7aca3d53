package httpserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
)

// apiServer has two tokens: alice's for the audience of the test and bob's for the API server.
type apiServer struct {
	authenticationclient.TokenReviewInterface
	away  bool
	asked *int
	hang  <-chan struct{}
}

func (a apiServer) Create(_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	if a.asked != nil {
		*a.asked++
	}
	if a.hang != nil {
		<-a.hang
	}
	if a.away {
		return nil, errors.New("away")
	}
	switch review.Spec.Token {
	case "alice":
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: review.Spec.Audiences, User: authenticationv1.UserInfo{Username: "alice", Groups: []string{"sre"}}}
	case "bob":
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "bob"}}
	}
	return review, nil
}

type access struct {
	authorizationclient.SubjectAccessReviewInterface
}

func (access) Create(_ context.Context, review *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	s := review.Spec
	review.Status.Allowed = s.User == "alice" && s.Groups[0] == "sre" && s.NonResourceAttributes.Verb == "get" && s.NonResourceAttributes.Path == "/pods"
	return review, nil
}

func TestGuard(t *testing.T) {
	for _, tc := range []struct {
		name, authorization, path string
		away                      bool
		want                      int
	}{
		{"may", "Bearer alice", "/pods", false, http.StatusOK},
		{"may, in lower case", "bearer alice", "/pods", false, http.StatusOK},
		{"may not get that", "Bearer alice", "/events", false, http.StatusForbidden},
		{"no token", "", "/pods", false, http.StatusUnauthorized},
		{"another scheme", "Basic alice", "/pods", false, http.StatusUnauthorized},
		{"an unknown token", "Bearer mallory", "/pods", false, http.StatusUnauthorized},
		{"a token for the API server", "Bearer bob", "/pods", false, http.StatusUnauthorized},
		{"no API server to ask", "Bearer alice", "/pods", true, http.StatusServiceUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := Guard{Audience: "test", Tokens: apiServer{away: tc.away}, Access: access{}, Log: logr.Discard()}
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, tc.path, nil)
			r.Header.Set("Authorization", tc.authorization)
			g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })).ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestWithoutAnAudienceTheGuardTakesTokensForTheAPIServer(t *testing.T) {
	g := Guard{Tokens: apiServer{}, Access: access{}, Log: logr.Discard()}
	for token, want := range map[string]int{"bob": http.StatusForbidden, "alice": http.StatusOK, "mallory": http.StatusUnauthorized} {
		if got := ask(g.Wrap(ok), token); got != want {
			t.Errorf("%s: %d, want %d", token, got, want)
		}
	}
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })

func ask(h http.Handler, token string) int {
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/pods", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	h.ServeHTTP(w, r)
	return w.Code
}

// An allowed caller that comes again is a question a minute; others are asked about each time.
func TestAllowedCallersAreRememberedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := Guard{Tokens: apiServer{asked: &asked}, Access: access{}, Log: logr.Discard()}.Wrap(ok)
		for range 3 {
			ask(h, "alice")
		}
		if asked != 1 {
			t.Errorf("asked %d times about an allowed caller", asked)
		}
		time.Sleep(allowedFor)
		ask(h, "alice")
		ask(h, "mallory")
		ask(h, "mallory")
		if asked != 4 {
			t.Errorf("asked %d times, want 4", asked)
		}
	})
}

// Callers cannot make a server put more questions than a few at a time, whatever tokens they show.
func TestQuestionsToTheAPIServerAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		h := Guard{Tokens: apiServer{hang: hang}, Access: access{}, Log: logr.Discard()}.Wrap(ok)
		for range reviewsInFlight {
			go ask(h, "mallory")
		}
		synctest.Wait()
		if got := ask(h, "alice"); got != http.StatusServiceUnavailable {
			t.Errorf("%d while %d questions wait", got, reviewsInFlight)
		}
		close(hang)
		synctest.Wait()
		if got := ask(h, "alice"); got != http.StatusOK {
			t.Errorf("%d afterwards", got)
		}
	})
}
