package plan

import (
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

func nameOf(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func TestStepsOfAPolicyEndpoint(t *testing.T) {
	other := policy.GroupKey{Namespace: "kidoban-system", Name: "g-other"}
	web := policy.GroupKey{Namespace: "shop", Name: "g-web"}
	want := &resolver.Endpoint{
		Name: nameOf("shop", "db-1"), Policy: nameOf("shop", "db"), UID: "1", Groups: []policy.GroupKey{other, web},
		Spec: &v1alpha1.PolicyEndpointSpec{PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "db", UID: "1", Generation: 1}},
	}
	partly := *want
	partly.Problems = []resolver.Problem{{Reason: v1alpha1.ReasonUnresolvedNamedPort, Message: "no pod has it"}}
	right := &v1alpha1.PolicyEndpoint{}
	SetEndpoint(right, want)
	SetStatus(right, Condition(nil))
	edited, foreign, unreported := right.DeepCopy(), right.DeepCopy(), right.DeepCopy()
	edited.Spec.PodSelector.MatchLabels = map[string]string{"app": "db"}
	foreign.Labels = nil
	unreported.Status = v1alpha1.EndpointStatus{}

	const all, none = "g-other g-web", ""
	for _, c := range []struct {
		name    string
		want    *resolver.Endpoint
		have    *v1alpha1.PolicyEndpoint
		present string
		steps   []Action
	}{
		{"new: its groups, itself, its status", want, nil, none, []Action{WriteGroup, WriteGroup, WriteEndpoint, QueueStatus}},
		{"new, with a group that others use", want, nil, "g-other", []Action{WriteGroup, WriteEndpoint, QueueStatus}},
		{"nothing to do", want, right, all, nil},
		{"a slice was deleted: no write of the PolicyEndpoint", want, right, "g-web", []Action{WriteGroup}},
		{"edited by another client", want, edited, all, []Action{WriteEndpoint, QueueStatus}},
		{"its label was removed", want, foreign, all, []Action{WriteEndpoint, QueueStatus}},
		{"its status was wiped", want, unreported, all, []Action{QueueStatus}},
		{"a new problem", &partly, right, all, []Action{QueueStatus}},
		{"its policy was deleted", nil, right, none, []Action{DeleteEndpoint}},
		{"its policy was deleted, and it with it", nil, nil, none, nil},
		{"another client's, without a policy", nil, foreign, none, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.have.DeepCopy()
			var got []Action
			for _, s := range Endpoint(c.want, c.have, func(g policy.GroupKey) bool { return slices.Contains(strings.Fields(c.present), g.Name) }) {
				got = append(got, s.Action)
				if s.Reason == "" {
					t.Errorf("%s has no reason", s.Action)
				}
			}
			if !slices.Equal(got, c.steps) {
				t.Errorf("got %q, want %q", got, c.steps)
			}
			if c.have != nil && !slices.Equal(before.Status.Conditions, c.have.Status.Conditions) {
				t.Error("the plan changed what is there")
			}
		})
	}
}

func TestRejections(t *testing.T) {
	resource := schema.GroupResource{Resource: "policyendpoints"}
	for _, c := range []struct {
		name              string
		err               error
		reason            string // empty: not reported to the author
		isFailure, reject bool
	}{
		{"a quota", apierrors.NewForbidden(resource, "db", errors.New("quota")), v1alpha1.ReasonRejected, true, true},
		{"a webhook", apierrors.NewBadRequest("no"), v1alpha1.ReasonRejected, true, true},
		{"an older schema", apierrors.NewInvalid(schema.GroupKind{}, "db", nil), v1alpha1.ReasonRejected, false, true},
		{"too large", apierrors.NewRequestEntityTooLargeError("x"), v1alpha1.ReasonTooLarge, false, true},
		{"a conflict", apierrors.NewConflict(resource, "db", errors.New("x")), "", true, false},
		{"no connection", errors.New("refused"), "", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			problem, isFailure, rejected := Rejection(c.err)
			if problem.Reason != c.reason || isFailure != c.isFailure || rejected != c.reject {
				t.Errorf("reason %q, failure %t, rejection %t", problem.Reason, isFailure, rejected)
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	var problems []resolver.Problem
	for range 100 {
		problems = append(problems, resolver.Problem{Reason: v1alpha1.ReasonInvalidPort, Message: "ports: “http” is missing"})
	}
	notes := Notes(append(problems, resolver.Problem{Reason: v1alpha1.ReasonInvalidPeer, Message: "peer"}))
	if len(notes) != 2 || notes[1] != (Note{v1alpha1.ReasonInvalidPeer, "peer"}) {
		t.Fatalf("%d notes: %+v", len(notes), notes)
	}
	if n := len(notes[0].Text); n > maxMessage || !strings.HasSuffix(notes[0].Text, "…") {
		t.Errorf("a text of %d bytes", n)
	}
}
