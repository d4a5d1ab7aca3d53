package node

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// isolating is a PolicyEndpoint of shop that isolates every pod from ingress.
func isolating(name string, enforcement v1alpha1.Enforcement, rules ...v1alpha1.Rule) *v1alpha1.PolicyEndpoint {
	return &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u"},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name}, Enforcement: enforcement,
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}, Ingress: rules,
		},
	}
}

func (s story) set(pe *v1alpha1.PolicyEndpoint, generation int64) {
	s.Helper()
	pe.Generation = generation
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		s.Fatal(err)
	}
}

// wouldBe checks what would become of a connection to a pod if audited policies were enforced.
func (s story) wouldBe(want policy.Action, from, to string) {
	s.Helper()
	s.Commit()
	f := policy.Flow{Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: policy.TCP, Port: 80}
	if v, audited := s.Maps().LookupAudit(policy.Ingress, f); !audited || v.Action != want {
		s.Errorf("%s → %s: %v (audited %v), want %v", from, to, v.Action, audited, want)
	}
}

// notAudited checks that a pod costs nothing more than without audited policies.
func (s story) notAudited(ip string) {
	s.Helper()
	s.Commit()
	if sets := s.Maps().Pods[netip.MustParseAddr(ip)].AuditSets; sets != [2]compiler.SetID{} {
		s.Errorf("%s has the audit sets %v", ip, sets)
	}
}

func TestALabelTakesEffectInOneWrite(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("db", "10.0.0.2")
	allowing := v1alpha1.Rule{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.8/32"}}}
	audited := isolating("p", v1alpha1.EnforcementAudit, allowing)
	audited.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	enforced := isolating("p", v1alpha1.EnforcementEnforce, allowing)
	enforced.Spec.PodSelector = audited.Spec.PodSelector

	s.set(audited, 1)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.wouldBe(policy.Deny, "10.0.0.9", "10.0.0.1")
	s.wouldBe(policy.Allow, "10.0.0.8", "10.0.0.1")
	s.notAudited("10.0.0.2")

	s.set(enforced, 2)
	changes, revision := s.Commit()
	if len(changes.Pods) != 1 {
		t.Errorf("a change of the label wrote %d pods", len(changes.Pods))
	}
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.notAudited("10.0.0.1")
	for name, r := range s.PolicyReports() {
		if !r.Pending {
			t.Errorf("%s is in force before it was written: %+v", name, r)
		}
	}
	s.Applied(start, revision, true)
	for name, r := range s.PolicyReports() {
		if r.Pending || r.Generation != 2 {
			t.Errorf("%s: %+v, want generation 2", name, r)
		}
	}
	s.set(audited, 3)
	if changes, _ := s.Commit(); len(changes.Pods) != 1 {
		t.Errorf("a change of the label wrote %d pods", len(changes.Pods))
	}
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.wouldBe(policy.Deny, "10.0.0.9", "10.0.0.1")
	s.endpointGone("p")
	s.notAudited("10.0.0.1")
}

func TestAnAuditedPolicyThatCannotBeReadIsolatesNoPod(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	broken := isolating("p", v1alpha1.EnforcementAudit)
	broken.Spec.UnknownFields = []string{"newer"}
	if s.SetPolicyEndpoint(start, broken) == nil {
		t.Error("it can be read")
	}
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.wouldBe(policy.Deny, "10.0.0.9", "10.0.0.1")
}

// A version that enforces must not leave pods open for longer than that of a new policy does.
func TestEnforcementDoesNotWaitBehindAnAuditedVersion(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.set(isolating("p", v1alpha1.EnforcementAudit), 1)
	s.set(isolating("p", v1alpha1.EnforcementEnforce, fromGroup("g")), 2)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	if isolated := s.IsolateLate(start.Add(GroupPatience), GroupPatience); len(isolated) != 1 {
		t.Errorf("isolated %v", isolated)
	}
	s.denied("10.0.0.9", "10.0.0.1", 80)

	s.set(isolating("q", v1alpha1.EnforcementAudit), 1)
	s.endpointGone("p")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	broken := isolating("q", v1alpha1.EnforcementEnforce)
	broken.Spec.UnknownFields = []string{"newer"}
	if s.SetPolicyEndpoint(start, broken) == nil {
		t.Error("it can be read")
	}
	s.denied("10.0.0.9", "10.0.0.1", 80)
}

func TestAnAuditedPolicyWaitsForItsGroups(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.set(isolating("p", v1alpha1.EnforcementAudit, fromGroup("g")), 1)
	if s.AwaitsGroups(start, StartPatience) {
		t.Error("an agent that starts waits for an audited policy")
	}
	if isolated := s.IsolateLate(start.Add(time.Hour), GroupPatience); len(isolated) != 0 {
		t.Errorf("isolated %v", isolated)
	}
	s.notAudited("10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.8/32")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.wouldBe(policy.Allow, "10.0.0.8", "10.0.0.1")
	s.wouldBe(policy.Deny, "10.0.0.9", "10.0.0.1")
}

func TestInStrictModeAnAuditedPolicyWouldAllow(t *testing.T) {
	s := newStory(t)
	s.opts.Mode = Strict
	s.pod("web", "10.0.0.1")
	s.set(isolating("p", v1alpha1.EnforcementAudit, v1alpha1.Rule{Action: v1alpha1.ActionAllow}), 1)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.wouldBe(policy.Allow, "10.0.0.9", "10.0.0.1")
}

func TestAuditedClusterPoliciesAndTrafficToTheOwnNode(t *testing.T) {
	s := newStory(t)
	s.SetNamespace(start, "shop", map[string]string{"team": "shop"}, false)
	s.pod("web", "10.0.0.1", func(p *corev1.Pod) { p.Spec.NodeName = "n1" })
	wouldReach := func() bool {
		s.Commit()
		f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("192.0.2.1"), Protocol: policy.TCP, Port: 80}
		v, audited := s.Maps().LookupOwnAudit(policy.Egress, f)
		if !audited {
			t.Error("traffic to the own node is not audited")
		}
		return v.Action == policy.Allow
	}
	audited := clusterEndpoint()
	audited.Spec.Enforcement, audited.Spec.Egress = v1alpha1.EnforcementAudit, []v1alpha1.Rule{{Action: v1alpha1.ActionDeny}}
	s.cluster(audited)
	if !s.JudgesOwn() || !s.reachesOwnNode("10.0.0.1", 80) || wouldReach() {
		t.Error("an audited Deny is not audited, or denies")
	}
	baseline := clusterEndpoint()
	baseline.Spec.Tier, baseline.Spec.Egress = v1alpha1.TierBaseline, []v1alpha1.Rule{{Action: v1alpha1.ActionDeny}}
	s.cluster(baseline)
	pe := isolating("np", v1alpha1.EnforcementAudit)
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	s.set(pe, 1)
	if s.reachesOwnNode("10.0.0.1", 80) || !wouldReach() {
		t.Error("an audited NetworkPolicy would keep the Baseline tier from deciding about traffic to the own node")
	}
}
