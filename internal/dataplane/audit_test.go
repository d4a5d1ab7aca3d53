package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// underAudit puts a policy under audit.
func underAudit(p *policy.Policy) *policy.Policy {
	p.Audited, p.ID.Name = true, p.ID.Name+"-audited"
	return p
}

// setAudit puts a pod under these policies, some of which are audited.
func (n *node) setAudit(p *netnstest.Pod, policies ...*policy.Policy) {
	n.t.Helper()
	n.compiler.SetPod(p.V4.String(), compiler.PodSpec{
		Addresses: addrs(p), Policies: policy.Enforced(policies), AuditPolicies: policies, Interfaces: []uint32{uint32(p.Host.Attrs().Index)},
	})
	check(n.t, n.d.Apply(n.compiler.Commit()))
}

// accepts is a policy of the Admin tier.
func accepts(d policy.Direction, r policy.Rule) *policy.Policy {
	p := denies(d, r)
	p.Rules[d][0].Action = policy.Allow
	return p
}

func TestAuditedPoliciesChangeNoPacket(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsDenied, CountHits: true})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	reported := watchEvents(t, n.d)
	for _, tc := range []struct {
		name     string
		policies []*policy.Policy
		reaches  bool
		// wouldBe is the verdict that is reported beside that of the enforced policies; Allow: none.
		wouldBe events.Verdict
		tier    policy.Tier
	}{
		{"a NetworkPolicy that would isolate", []*policy.Policy{underAudit(isolate(policy.Ingress))}, true, events.AuditDeny, policy.TierNetworkPolicy},
		{"a NetworkPolicy that would allow the same", []*policy.Policy{underAudit(isolate(policy.Ingress, with(pods(a))))}, true, events.Allow, 0},
		{"one for the other direction", []*policy.Policy{underAudit(isolate(policy.Egress))}, true, events.Allow, 0},
		{"a Deny before a NetworkPolicy that allows", []*policy.Policy{
			underAudit(denies(policy.Ingress, with(pods(a)))), isolate(policy.Ingress, with(pods(a))),
		}, true, events.AuditDeny, policy.TierAdmin},
		{"a NetworkPolicy that would allow what another denies", []*policy.Policy{
			isolate(policy.Ingress), underAudit(isolate(policy.Ingress, with(pods(a)))),
		}, false, events.AuditAllow, policy.TierNetworkPolicy},
		{"an Accept before a NetworkPolicy that denies", []*policy.Policy{
			underAudit(accepts(policy.Ingress, with(pods(a)))), isolate(policy.Ingress),
		}, false, events.AuditAllow, policy.TierAdmin},
		{"a Deny of what is denied already", []*policy.Policy{underAudit(denies(policy.Ingress, with(pods(a)))), isolate(policy.Ingress)}, false, events.Allow, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n.setAudit(b, tc.policies...)
			set := n.compiler.Maps().Pods[b.V4].AuditSets[policy.Ingress]
			bothFamilies(t, func(t *testing.T, v6 bool) {
				if tc.reaches {
					reaches(t, a, "udp", b.Addr(v6), 80)
				} else {
					isKept(t, a, "udp", b.Addr(v6), 80)
					if e := nextEvent(t, reported); e.Verdict != events.Deny {
						t.Errorf("event of the denial: %+v", e)
					}
				}
				if tc.wouldBe == events.Allow {
					return
				}
				e := nextEvent(t, reported)
				if e.Verdict != tc.wouldBe || e.Tier != tc.tier || e.Set != set || e.Destination != netip.AddrPortFrom(b.Addr(v6), 80) {
					t.Errorf("event %+v, want %v of tier %v by set %d", e, tc.wouldBe, tc.tier, set)
				}
			})
			n.setAudit(b)
			for len(reported) > 0 { // packets that a client sent again
				nextEvent(t, reported)
			}
		})
	}
	hits, err := n.d.RuleHits()
	check(t, err)
	found := map[events.Verdict]bool{}
	for h := range hits {
		found[h.Verdict] = true
	}
	if !found[events.AuditDeny] || !found[events.AuditAllow] {
		t.Errorf("hits %v", hits)
	}
}

func TestAnAuditedPolicyCutsNoFlow(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.setAudit(b, isolate(policy.Ingress, with(pods(a))))
	n.compiler.SetPod(b.V4.String(), compiler.PodSpec{
		Addresses: addrs(b), Interfaces: []uint32{uint32(b.Host.Attrs().Index)},
		Policies:      []*policy.Policy{isolate(policy.Ingress, with(pods(a)))},
		AuditPolicies: []*policy.Policy{underAudit(denies(policy.Ingress, everyone())), isolate(policy.Ingress, with(pods(a)))},
	})
	changes := n.compiler.Commit()
	if len(changes.Pods) == 0 || len(changes.Narrowed.Addresses) > 0 || changes.Narrowed.Everything {
		t.Errorf("an audited policy wrote %d entries of pods and narrowed %+v", len(changes.Pods), changes.Narrowed)
	}
}

func TestAPacketThatCannotBeReadWouldBeDenied(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Events: dataplane.EventsDenied})
	p := packet{Flow: flow("fd00::2", "fd00::1", policy.TCP, 80), edit: cut(19)}
	sync(t, d, &compiler.Maps{Pods: map[netip.Addr]compiler.Pod{p.Destination: {AuditSets: [2]compiler.SetID{policy.Ingress: 1}}}})
	run, reported := newRunner(t, d), watchEvents(t, d)
	if !run.passes(p) {
		t.Error("the packet did not pass")
	}
	if e := nextEvent(t, reported); e.Verdict != events.AuditDeny || e.Reason != events.ReasonUnparsable || e.Set != 1 {
		t.Errorf("event %+v", e)
	}
}
