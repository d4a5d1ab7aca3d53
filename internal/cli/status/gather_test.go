package status

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
)

func TestResolved(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3}}
	for name, tc := range map[string]struct {
		of        int64 // generation of the policy that the PolicyEndpoint carries
		condition *metav1.Condition
		want      string
		message   string
	}{
		"resolved":                     {3, &metav1.Condition{Status: "True", ObservedGeneration: 7}, "True", ""},
		"not resolved":                 {3, &metav1.Condition{Status: "False", ObservedGeneration: 7, Reason: "R", Message: "m"}, "False", "R: m"},
		"another generation's":         {2, &metav1.Condition{Status: "True", ObservedGeneration: 7}, "Behind", ""},
		"a newer one was rejected":     {2, &metav1.Condition{Status: "False", ObservedGeneration: 7, Reason: v1alpha1.ReasonRejected, Message: "exceeded quota"}, "Behind", "Rejected: exceeded quota"},
		"another generation's problem": {2, &metav1.Condition{Status: "False", ObservedGeneration: 7, Reason: "R", Message: "m"}, "Behind", ""},
		"nothing said yet":             {3, nil, "Missing", ""},
		"said of an older spec":        {3, &metav1.Condition{Status: "True", ObservedGeneration: 6}, "Behind", ""},
		"a problem of an older spec":   {3, &metav1.Condition{Status: "False", ObservedGeneration: 6, Reason: "R", Message: "m"}, "Behind", ""},
	} {
		t.Run(name, func(t *testing.T) {
			pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Status: v1alpha1.EndpointStatus{PolicyGeneration: tc.of}}
			pe.Spec.PolicyRef.Generation = tc.of
			if tc.condition != nil {
				tc.condition.Type = v1alpha1.ConditionResolved
				pe.Status.Conditions = []metav1.Condition{*tc.condition}
			}
			if p := newPolicy(np, pe); p.Resolved != tc.want || p.Message != tc.message {
				t.Errorf("%s, %q; want %s, %q", p.Resolved, p.Message, tc.want, tc.message)
			}
		})
	}
}

// The status is about the policy's generation that it names, which may not be the newest although the spec is.
func TestStatusOfAnotherGeneration(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 3}}
	for of, want := range map[int64]string{0: "True", 2: "Behind", 3: "True"} { // 0: the controller does not write it
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Status: v1alpha1.EndpointStatus{
			PolicyGeneration: of,
			Conditions:       []metav1.Condition{{Type: v1alpha1.ConditionResolved, Status: "True", ObservedGeneration: 7}},
		}}
		pe.Spec.PolicyRef.Generation = np.Generation
		if p := newPolicy(np, pe); p.Resolved != want {
			t.Errorf("a status of generation %d: %s, want %s", of, p.Resolved, want)
		}
	}
}

// A label does not change a policy's generation.
func TestAPolicyIsInForceAsItsLabelSays(t *testing.T) {
	since := metav1.Now()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "u", Generation: 3, Labels: map[string]string{v1alpha1.LabelEnforcement: v1alpha1.LabelledAudit},
	}}
	for name, tc := range map[string]struct {
		enforcement v1alpha1.Enforcement
		agent       bool
		resolved    string
		state       string
	}{
		"everywhere":     {v1alpha1.EnforcementAudit, true, "True", agentapi.StateInForce},
		"not at agents":  {v1alpha1.EnforcementAudit, false, "True", agentapi.StatePending},
		"not at the API": {v1alpha1.EnforcementEnforce, false, "Behind", agentapi.StatePending},
	} {
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Generation: 7}, Status: v1alpha1.EndpointStatus{Conditions: []metav1.Condition{
			{Type: v1alpha1.ConditionResolved, Status: "True", ObservedGeneration: 7}, {Type: v1alpha1.ConditionAudited, Status: "True", LastTransitionTime: since},
		}}}
		pe.Spec.PolicyRef.Generation, pe.Spec.Enforcement = 3, tc.enforcement
		p := newPolicy(np, pe)
		if p.Resolved != tc.resolved || !p.Audited || p.AuditedSince == nil || *p.AuditedSince != since {
			t.Errorf("%s: %+v", name, p)
		}
		version := agentapi.Version{UID: "u", Generation: 3}
		r := &report{policies: []agentapi.Policy{{
			PolicyRef: agentapi.PolicyRef{Kind: agentapi.KindNetworkPolicy, Namespace: "shop", Name: "web"}, State: agentapi.StateInForce,
			Audited: tc.agent, Newest: version, Realised: &agentapi.Realised{Version: version},
		}}}
		if n := onNode(np, agentapi.KindNetworkPolicy, "n1", r); n.State != tc.state {
			t.Errorf("%s: %+v, want %s", name, n, tc.state)
		}
		if text := inForce(&p); !strings.HasPrefix(text, "audited since 20") {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func peer(node, uid string, change ...func(*corev1.Pod)) corev1.Pod {
	p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: uid, UID: types.UID(uid)}}
	p.Spec.NodeName, p.Status.PodIP = node, "10.0.0.1"
	for _, f := range change {
		f(&p)
	}
	return p
}

func TestPodsThatAreNotJudged(t *testing.T) {
	pods := []corev1.Pod{
		peer("n1", "judged"),
		peer("n1", "unknown"),
		peer("n1", "pending"),
		peer("n1", "recreated"),
		peer("n1", "host", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		peer("n1", "ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		peer("n1", "new", func(p *corev1.Pod) { p.Status.PodIP = "" }),
		peer("n2", "elsewhere"),
		peer("n3", "not asked"),
		peer("n4", "no agent"),
		peer("", "nowhere"),
	}
	s := &Status{}
	s.unjudged(pods, map[string]*report{
		"n1": {pods: []agentapi.Pod{
			{UID: "judged", State: agentapi.StateInForce},
			{UID: "pending", State: agentapi.StatePending},
			{Namespace: "shop", Name: "recreated", UID: "the one before", State: agentapi.StateInForce},
		}},
		"n2": {pods: []agentapi.Pod{{UID: "elsewhere", State: agentapi.StateInForce}}},
		"n3": {err: errors.New("no answer")},
	})
	want := []string{"node n1: its agent does not know, or has not in force, 3 pods: shop/pending, shop/recreated, shop/unknown"}
	if diff := cmp.Diff(want, s.Attention); diff != "" {
		t.Error(diff)
	}
}

// On a busy node something is always being written. Only what stays Pending is worth a person's time.
func TestPendingPodsAreLookedAtAgain(t *testing.T) {
	pending, inForce := []agentapi.Pod{{State: agentapi.StatePending}}, []agentapi.Pod{{State: agentapi.StateInForce}}
	for name, tc := range map[string]struct {
		answers [][]agentapi.Pod
		looks   int
		want    string
	}{
		"in force":            {[][]agentapi.Pod{inForce}, 1, agentapi.StateInForce},
		"for a moment":        {[][]agentapi.Pod{pending, pending, inForce}, 3, agentapi.StateInForce},
		"as long as we asked": {[][]agentapi.Pod{pending, pending, pending, pending, pending, pending}, looks, agentapi.StatePending},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			got, err := awaitPods(context.Background(), 0, func() ([]agentapi.Pod, error) {
				n++
				return tc.answers[n-1], nil
			})
			if err != nil || n != tc.looks || got[0].State != tc.want {
				t.Errorf("%+v after %d looks, %v", got, n, err)
			}
		})
	}
}
