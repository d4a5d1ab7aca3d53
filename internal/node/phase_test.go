package node

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// paths lead to each phase from the first one.
var paths = map[Phase][]event{
	Unknown:                      {},
	Waiting:                      {incomplete},
	InForce:                      {complete},
	InForceAndWaiting:            {complete, incomplete},
	IsolatedUnreadable:           {unreadable},
	IsolatedUnreadableAndWaiting: {unreadable, incomplete},
	IsolatedLate:                 {incomplete, late},
	Retained:                     {complete, deleted},
}

var eventNames = [events]string{incomplete: "incomplete", complete: "complete", unreadable: "unreadable", late: "late", deleted: "deleted", orphaned: "orphaned", removed: "removed"}

// happen makes an event happen to the PolicyEndpoint shop/p by what a watch reports.
func (s story) happen(ev event) {
	s.Helper()
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p", Generation: int64(s.Revision())}}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
	var err error
	switch ev {
	case incomplete:
		pe.Spec.Ingress = []v1alpha1.Rule{fromGroup("missing")}
		err = s.SetPolicyEndpoint(start, pe)
	case complete:
		pe.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.2/32"}}}}
		err = s.SetPolicyEndpoint(start, pe)
	case unreadable:
		pe.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/33"}}}}
		if s.SetPolicyEndpoint(start, pe) == nil {
			s.Fatal("10.0.0.0/33 is accepted as a CIDR")
		}
	case late:
		s.IsolateLate(start.Add(GroupPatience), GroupPatience)
	case deleted, orphaned:
		s.SetNamespace(start, "shop", nil, ev == orphaned)
		s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "p"})
	case removed:
		if s.phase() != Retained { // RemoveDeleted leaves the others alone
			s.ForgetNamespace(start, "shop")
			s.namespaces["shop"] = newNamespace()
			s.NamespaceSynced(start, "shop")
			break
		}
		s.removeDeleted(start.Add(DeletionPatience))
	case events:
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s story) phase() Phase {
	if e := s.policies[types.NamespacedName{Namespace: "shop", Name: "p"}]; e != nil {
		return e.phase
	}
	return Unknown
}

// consistent checks what a phase promises: which versions there are, and whether the pod is isolated.
func (s story) consistent() {
	s.Helper()
	key := types.NamespacedName{Namespace: "shop", Name: "p"}
	phase := s.phase()
	if e := s.policies[key]; e != nil && ((e.active != nil) != phase.isolates() || (e.waiting != nil) != phase.waits()) {
		s.Errorf("phase %v with active %v and waiting %v", phase, e.active, e.waiting)
	}
	if _, ok := s.waiting[key]; ok != phase.waits() {
		s.Errorf("phase %v, on the list of waiting policies: %v", phase, ok)
	}
	if isolated := s.decide("10.0.0.9", "10.0.0.1", 80) == policy.Deny; isolated != phase.isolates() {
		s.Errorf("phase %v, isolated: %v", phase, isolated)
	}
}

func TestTransitions(t *testing.T) {
	for from, path := range paths {
		for ev := range events {
			t.Run(fmt.Sprint(from, "+", eventNames[ev]), func(t *testing.T) {
				s := newStory(t)
				s.pod("web", "10.0.0.1")
				for _, ev := range path {
					s.happen(ev)
				}
				if s.phase() != from {
					t.Fatalf("the path leads to %v", s.phase())
				}
				s.consistent()
				allowed := s.decide("10.0.0.2", "10.0.0.1", 80)
				s.happen(ev)
				to := s.phase()
				if to != transitions[from][ev] {
					t.Errorf("to %v, want %v", to, transitions[from][ev])
				}
				s.consistent()
				switch {
				case ev == complete && to != InForce:
					t.Errorf("to %v: a complete version does not come into force", to)
				case ev == removed && to != Unknown:
					t.Errorf("to %v: a removed policy stays", to)
				case ev != removed && from.isolates() && !to.isolates():
					t.Errorf("to %v: isolated pods become open", to)
				case (from == InForce || from == InForceAndWaiting) && ev != removed && s.decide("10.0.0.2", "10.0.0.1", 80) != allowed:
					t.Errorf("to %v: the version in force changes", to)
				}
			})
		}
	}
	if len(paths) != int(phases) {
		t.Errorf("%d phases of %d have a path", len(paths), phases)
	}
}

// The groups of a waiting version may become complete in each phase that waits.
func TestGroupsOfAWaitingVersionArrive(t *testing.T) {
	for from, path := range paths {
		if !from.waits() {
			continue
		}
		s := newStory(t)
		s.pod("web", "10.0.0.1")
		for _, ev := range path {
			s.happen(ev)
		}
		s.slice("shop", "missing", 0, 1, "10.0.0.3/32")
		if s.phase() != InForce {
			t.Errorf("%v → %v", from, s.phase())
		}
		s.consistent()
		s.allowed("10.0.0.3", "10.0.0.1", 80)
	}
}

// A policy that was repaired, and whose groups do not arrive, allows the addresses that are known, as one that an agent sees for the first time.
func TestARepairedPolicyWhoseGroupsDoNotArrive(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "missing", 0, 2, "10.0.0.3/32")
	s.happen(unreadable)
	s.happen(incomplete)
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.IsolateLate(start.Add(time.Second), GroupPatience)
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.happen(late)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.denied("10.0.0.4", "10.0.0.1", 80)
}
