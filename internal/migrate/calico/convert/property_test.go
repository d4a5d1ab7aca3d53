package convert_test

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/convert"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

var known = map[string]map[string]string{
	"one":   {"kubernetes.io/metadata.name": "one", "team": "red"},
	"two":   {"kubernetes.io/metadata.name": "two", "team": "blue"},
	"three": {"kubernetes.io/metadata.name": "three"},
}

var podCIDRs = []netip.Prefix{netip.MustParsePrefix("10.7.0.0/16"), netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("2001:db8::/32")}

func endpoint(c *reference.NetworkPolicies, a netip.Addr) *calico.Endpoint {
	e := &calico.Endpoint{Addr: a, Pod: c.PodAt(a)}
	if e.Pod != nil {
		e.NamespaceLabels = known[e.Pod.Namespace]
	}
	return e
}

// differs asks Calico's judge about one side, and the reference evaluator about what was written, on flows of random clusters.
func differs(r random, before *calico.Set, after []networkingv1.NetworkPolicy, cluster []cnp.ClusterNetworkPolicy, cidrs []netip.Prefix, flows int) (policy.Direction, policy.Flow, bool) {
	judge := calico.NewJudge(before, known)
	for range flows / 50 {
		c := r.cluster(known)
		for i := 0; i < len(c.Pods) && cidrs != nil; i++ { // only where pods may be
			for _, a := range policy.PodAddresses(&c.Pods[i]) {
				if !calico.PodSpace(cidrs).Contains(a) {
					c.Pods = append(c.Pods[:i], c.Pods[i+1:]...)
					i--
					break
				}
			}
		}
		if len(c.Pods) == 0 {
			continue
		}
		c.Policies = after
		all := reference.Cluster{NetworkPolicies: *c, ClusterPolicies: cluster}
		for range 50 {
			d, f := r.flow(c)
			self, peer := endpoint(c, f.Destination), endpoint(c, f.Source)
			if d == policy.Egress {
				self, peer = peer, self
			}
			want := judge.Evaluate(d, self, peer, calico.Traffic{Protocol: f.Protocol, Port: f.Port, Target: endpoint(c, f.Destination).Pod})
			if got := all.Evaluate(d, f); got.Allowed() != want.Allowed {
				return d, f, true
			}
		}
	}
	return 0, policy.Flow{}, false
}

// What is converted means the same, by the proof and by random flows through evaluators that know nothing of conversions.
func TestConversionsMeanTheSame(t *testing.T) {
	converted, refused, split := 0, 0, 0
	for seed := range uint64(1000) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		s := r.set()
		o := convert.Options{Namespaces: known, ExpandGlobal: true, WithoutLog: true}
		if r.sometimes(2) {
			o.PodCIDRs = podCIDRs
		}
		result := convert.Convert(s, o)
		converted += len(result.Converted)
		refused += len(result.NotConverted)
		if len(result.Policies) > len(result.Converted) {
			split++
		}
		if report := prove(t, s, result, o); report.Differing > 0 {
			t.Fatalf("seed %d: the proof says %+v\nof %+v\nwritten:\n%s", seed, report.Differences[0], s.Policies, specs(t, result))
		}
		before, after := sides(s, result)
		if d, f, found := differs(r, before, after, nil, o.PodCIDRs, 200); found {
			t.Fatalf("seed %d: %v of %+v differs, which the proof did not see\nof %+v\nwritten:\n%s", seed, d, f, s.Policies, specs(t, result))
		}
	}
	if converted < 600 || refused < 300 || split < 30 {
		t.Errorf("%d policies converted, %d refused, %d sets split: the test does not look at enough of each", converted, refused, split)
	}
}

// TestClusterConversionsMeanTheSame is TestConversionsMeanTheSame with ClusterNetworkPolicies.
func TestClusterConversionsMeanTheSame(t *testing.T) {
	converted, written, both := 0, 0, 0
	for seed := range uint64(1000) {
		r := random{rand.New(rand.NewPCG(seed, 3))}
		s := r.set()
		for i := range s.Policies { // more of those that can become ClusterNetworkPolicies
			if p := &s.Policies[i]; r.sometimes(2) {
				p.Kind, p.Namespace = calico.KindGlobalNetworkPolicy, ""
			}
		}
		o := convert.Options{Namespaces: known, ExpandGlobal: true, WithoutLog: true, Cluster: true}
		if r.sometimes(2) {
			o.PodCIDRs = podCIDRs
		}
		result := convert.Convert(s, o)
		converted += len(result.Converted)
		written += len(result.Cluster)
		if len(result.Cluster) > 0 && len(result.Policies) > 0 {
			both++
		}
		if report := prove(t, s, result, o); report.Differing > 0 {
			t.Fatalf("seed %d: the proof says %+v\nof %+v\nwritten:\n%s", seed, report.Differences[0], s.Policies, specs(t, result))
		}
		before, after := sides(s, result)
		if d, f, found := differs(r, before, after, result.Cluster, o.PodCIDRs, 200); found {
			t.Fatalf("seed %d: %v of %+v differs, which the proof did not see\nof %+v\nwritten:\n%s", seed, d, f, s.Policies, specs(t, result))
		}
	}
	if converted < 600 || written < 300 || both < 30 {
		t.Errorf("%d policies converted, %d ClusterNetworkPolicies, in %d sets beside NetworkPolicies: the test does not look at enough of each", converted, written, both)
	}
}

func sides(s *calico.Set, result *convert.Result) (*calico.Set, []networkingv1.NetworkPolicy) {
	refused := map[string]bool{}
	for _, name := range result.NotConverted {
		refused[name] = true
	}
	return s.Without(func(p *calico.Policy) bool { return refused[p.String()] }, s.Kubernetes),
		append(append([]networkingv1.NetworkPolicy{}, s.Kubernetes...), result.Policies...)
}

// Sabotage: whatever is changed in what was written, if random flows tell the difference, so does the proof.
func TestProofFindsSabotage(t *testing.T) {
	found, harmless := 0, 0
	for seed := range uint64(600) {
		r := random{rand.New(rand.NewPCG(seed, 2))}
		s := r.set()
		o := convert.Options{Namespaces: known, ExpandGlobal: true, WithoutLog: true}
		result := convert.Convert(s, o)
		if len(result.Policies) == 0 {
			continue
		}
		before, after := sides(s, result)
		what := sabotage(r, after[len(s.Kubernetes):])
		if what == "" {
			continue
		}
		report, err := proof.Compare(t.Context(), before, &calico.Set{Kubernetes: after}, proof.Options{Namespaces: known})
		if err != nil {
			t.Fatal(err)
		}
		d, f, differ := differs(r, before, after, nil, nil, 1000)
		switch {
		case differ && report.Differing == 0:
			t.Fatalf("seed %d: %s: %v of %+v differs, which the proof did not find\n%s", seed, what, d, f, specs(t, result))
		case report.Differing > 0:
			found++
			for _, d := range report.Differences {
				if d.Before.Allowed == d.After.Allowed {
					t.Fatalf("seed %d: %+v is no difference", seed, d)
				}
			}
		default:
			harmless++
		}
	}
	if found < 150 {
		t.Errorf("%d found, %d harmless", found, harmless)
	}
}

// sabotage one of the policies, and tell what was done; nothing where that policy has no such thing.
func sabotage(r random, list []networkingv1.NetworkPolicy) string {
	i := r.IntN(len(list))
	np := list[i].DeepCopy()
	list[i] = *np
	spec := &list[i].Spec
	var peers *[]networkingv1.NetworkPolicyPeer
	var ports *[]networkingv1.NetworkPolicyPort
	if len(spec.Ingress) > 0 {
		n := r.IntN(len(spec.Ingress))
		peers, ports = &spec.Ingress[n].From, &spec.Ingress[n].Ports
	} else if len(spec.Egress) > 0 {
		n := r.IntN(len(spec.Egress))
		peers, ports = &spec.Egress[n].To, &spec.Egress[n].Ports
	}
	switch r.IntN(9) {
	case 0:
		spec.PolicyTypes = spec.PolicyTypes[:len(spec.PolicyTypes)-1]
		if len(spec.PolicyTypes) == 0 {
			spec.PolicyTypes = []networkingv1.PolicyType{map[bool]networkingv1.PolicyType{true: "Ingress", false: "Egress"}[np.Spec.PolicyTypes[0] == "Egress"]}
		}
		return "a type is dropped"
	case 1:
		spec.PodSelector.MatchLabels = map[string]string{"a": "w"}
		return "the selector asks for another label"
	case 2:
		spec.PodSelector.MatchExpressions, spec.PodSelector.MatchLabels = nil, nil
		return "the selector selects all"
	case 3:
		if len(spec.Ingress) > 0 {
			spec.Ingress = spec.Ingress[1:]
			return "a rule is dropped"
		}
	case 4:
		spec.Ingress = append(spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
		return "a rule that allows everything"
	}
	if peers == nil {
		return ""
	}
	switch {
	case len(*ports) > 0 && r.sometimes(2):
		p := &(*ports)[0]
		switch {
		case p.EndPort != nil:
			*p.EndPort++
		case p.Port != nil && p.Port.StrVal == "":
			p.Port.IntVal++
		case p.Port != nil:
			p.Port.StrVal = "web"
		default:
			port := intstr.FromInt32(80)
			p.Port = &port
		}
		return "another port"
	case len(*peers) == 0:
		return ""
	}
	peer := &(*peers)[r.IntN(len(*peers))]
	switch {
	case peer.IPBlock != nil && len(peer.IPBlock.Except) > 0:
		peer.IPBlock.Except = peer.IPBlock.Except[1:]
		return "an except is dropped"
	case peer.IPBlock != nil:
		p := netip.MustParsePrefix(peer.IPBlock.CIDR)
		if p.Bits() == 0 {
			peer.IPBlock.CIDR = map[bool]string{true: "10.0.0.0/8", false: "fd00::/16"}[p.Addr().Is4()]
			return "a smaller block"
		}
		peer.IPBlock.CIDR = netip.PrefixFrom(p.Addr(), p.Bits()-1).Masked().String()
		return "a larger block"
	case peer.NamespaceSelector != nil:
		peer.NamespaceSelector = nil
		return "the namespace selector is dropped"
	case peer.PodSelector != nil && r.sometimes(2):
		peer.PodSelector.MatchLabels, peer.PodSelector.MatchExpressions = nil, nil
		return "the pod selector selects all"
	}
	*peers = (*peers)[:0]
	return "everybody is a peer"
}
