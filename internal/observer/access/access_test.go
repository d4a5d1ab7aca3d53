package access

import (
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// A token can have less rights than another of the same user, which is in what the API server calls extra. What one may read is not remembered
// for the other.
func TestTokensOfOneUserWithOtherRights(t *testing.T) {
	client := fake.NewClientset()
	client.PrependReactor("create", "tokenreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		r := a.(clienttesting.CreateAction).GetObject().(*authenticationv1.TokenReview).DeepCopy()
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: r.Spec.Audiences, User: authenticationv1.UserInfo{
			Username: "user", Extra: map[string]authenticationv1.ExtraValue{"scopes": {r.Spec.Token}},
		}}
		return true, r, nil
	})
	asked := 0
	client.PrependReactor("create", "subjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		r := a.(clienttesting.CreateAction).GetObject().(*authorizationv1.SubjectAccessReview).DeepCopy()
		r.Status.Allowed = r.Spec.Extra["scopes"][0] == "full"
		return true, r, nil
	})
	g := &Guard{Audience: "observer", Tokens: client.AuthenticationV1().TokenReviews(), Access: client.AuthorizationV1().SubjectAccessReviews()}
	for range 2 {
		for token, want := range map[string]bool{"full": true, "restricted": false} {
			r, err := g.Reader(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if can, err := r.CanRead(t.Context(), "shop"); err != nil || can != want {
				t.Errorf("token %s: %t, want %t: %v", token, can, want, err)
			}
		}
	}
	if asked != 2 {
		t.Errorf("the API server was asked %d times", asked)
	}
}
