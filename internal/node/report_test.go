package node

import (
	"reflect"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// version is a PolicyEndpoint that selects web pods.
func (s story) version(name string, generation int64, rules ...v1alpha1.Rule) error {
	return s.SetPolicyEndpoint(start, &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Generation: generation},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name},
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
			Ingress:     rules,
		},
	})
}

func (s story) reports(name string, want map[string]PolicyReport) {
	s.Helper()
	got := map[string]PolicyReport{}
	for key, r := range s.PolicyReports() {
		r.UID = ""
		got[key.Name] = r
	}
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s: reports\n%+v, want\n%+v", name, got, want)
	}
}

func TestReportsOfPolicies(t *testing.T) {
	s := newStory(t)
	written := func() {
		_, revision := s.Commit()
		s.Applied(start, revision, true)
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(s.version("a", 1))
	written()
	s.reports("without pods", map[string]PolicyReport{})

	s.pod("web", "10.0.0.1")
	s.pod("other", "10.0.0.2")
	written()
	s.reports("with a pod", map[string]PolicyReport{"a": {Generation: 1}})

	ok(s.version("a", 2, v1alpha1.Rule{Action: v1alpha1.ActionAllow}))
	s.reports("before it is written", map[string]PolicyReport{"a": {Generation: 2, Pending: true, Reason: ReasonNotWritten}})
	written()
	s.reports("written", map[string]PolicyReport{"a": {Generation: 2}})

	ok(s.version("a", 3, fromGroup("missing")))
	ok(s.version("b", 1, fromGroup("missing")))
	written()
	s.reports("while groups are missing", map[string]PolicyReport{
		"a": {Generation: 2, Reason: ReasonWaitingForGroups}, "b": {Reason: ReasonWaitingForGroups},
	})
	s.IsolateLate(start.Add(2*GroupPatience), GroupPatience)
	written()
	s.reports("when they are late", map[string]PolicyReport{
		"a": {Generation: 2, Reason: ReasonWaitingForGroups}, "b": {Reason: ReasonWaitingForGroups},
	})
	s.slice("shop", "missing", 0, 1, "10.0.0.9/32")
	written()
	s.reports("when they are here", map[string]PolicyReport{"a": {Generation: 3}, "b": {Generation: 1}})

	if s.version("c", 1, v1alpha1.Rule{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "ten"}}}) == nil {
		t.Fatal("an unreadable policy is no error")
	}
	written()
	s.reports("one that cannot be read", map[string]PolicyReport{"a": {Generation: 3}, "b": {Generation: 1}, "c": {Reason: ReasonUnreadable}})

	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "a"})
	s.DeletePod(start.Add(time.Second), s.lastSeen(types.NamespacedName{Namespace: "shop", Name: "web"}))
	written()
	s.reports("without the pod", map[string]PolicyReport{})
}
