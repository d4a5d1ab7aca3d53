package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// size of a synthetic cluster. Policies and pods are spread evenly over the namespaces.
type size struct{ namespaces, policies, pods int }

// String formats a size as the flag's value.
func (s size) String() string { return fmt.Sprintf("%d,%d,%d", s.namespaces, s.policies, s.pods) }

// words formats a size for the report.
func (s size) words() string {
	return fmt.Sprintf("%s namespaces, %s policies, %s pods", thousands(s.namespaces), thousands(s.policies), thousands(s.pods))
}

// Set parses a flag's value.
func (s *size) Set(text string) error {
	_, err := fmt.Sscanf(text, "%d,%d,%d", &s.namespaces, &s.policies, &s.pods)
	if err != nil || s.namespaces < teamSize || s.policies < s.namespaces || s.pods < s.namespaces {
		return fmt.Errorf("needs three numbers: at least %d namespaces, and as many policies and pods or more", teamSize)
	}
	return nil
}

const (
	teamSize      = 10 // namespaces that belong together
	apps          = 20 // in each namespace
	nodesPerBlock = 10 // a block is the nodes that a team's pods run on
)

var tiers = []string{"frontend", "backend", "data"}

// load draws a cluster: teams of ten namespaces with apps in three tiers. The policies' peers are in their
// own namespace, in their team's, in all production namespaces, and the first namespace's DNS and monitoring,
// which all namespaces use.
type load struct {
	size
	clusterPolicies int
	perNode         int // namespaces that have pods on one node
	seed            uint64
	rng             *rand.Rand // of changes
	next            uint32     // number of the next pod
}

func newLoad(s size, clusterPolicies int, seed uint64) *load {
	return &load{size: s, clusterPolicies: clusterPolicies, perNode: teamSize, seed: seed, rng: rand.New(rand.NewPCG(seed, 0))}
}

func namespaceName(i int) string { return fmt.Sprintf("ns-%04d", i) }

// namespaceLabels of the i-th namespace.
func namespaceLabels(i int) map[string]string {
	stage := "production"
	if i%2 == 1 {
		stage = "staging"
	}
	return map[string]string{corev1.LabelMetadataName: namespaceName(i), "team": fmt.Sprintf("team-%03d", i/teamSize), "stage": stage}
}

// pod is a pod of a load.
type pod struct {
	namespace int
	index     int // in its namespace, which determines its app and tier; a successor has the same
	name      string
	labels    map[string]string
	address   netip.Addr
	node      string
}

// podNetwork has the addresses of all pods.
var podNetwork = netip.MustParsePrefix("10.0.0.0/8")

// pod makes the j-th pod of a namespace, with a new name and address.
func (l *load) pod(namespace, j int) pod {
	n := l.next
	l.next++
	app := fmt.Sprintf("app-%02d", j%apps)
	p := pod{
		namespace: namespace,
		index:     j,
		name:      fmt.Sprintf("%s-%07d", app, n),
		labels:    map[string]string{"app": app, "tier": tiers[j%len(tiers)], "pod-template-hash": fmt.Sprintf("%08x", j%apps*2654435), "version": fmt.Sprintf("v%d", j%2)},
		address:   netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}),
		node:      l.nodeName(namespace, j),
	}
	if namespace == 0 && j < 5 {
		p.labels["app"] = []string{"dns", "dns", "dns", "monitoring", "monitoring"}[j]
	}
	return p
}

// nodeName spreads a team's pods over its nodes: each runs pods of all the team's namespaces, and of its
// neighbours' with a larger perNode.
func (l *load) nodeName(namespace, j int) string {
	return fmt.Sprintf("node-%03d-%d", namespace/l.perNode, j%nodesPerBlock)
}

// allPods makes the pods that exist at the beginning.
func (l *load) allPods() []pod {
	each := l.pods / l.namespaces
	out := make([]pod, 0, l.pods)
	for ns := range l.namespaces {
		for j := range each {
			out = append(out, l.pod(ns, j))
		}
	}
	return out
}

func (p *pod) key() types.NamespacedName {
	return types.NamespacedName{Namespace: namespaceName(p.namespace), Name: p.name}
}

// forResolver is the running pod as the resolver's input.
func (p *pod) forResolver() resolver.Pod {
	return resolver.Pod{
		Key: p.key(), Labels: p.labels, Phase: corev1.PodRunning, Addresses: []netip.Addr{p.address},
		Ports: []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: 8080}},
	}
}

// relabelled is the pod as another app of another tier.
func (p pod) relabelled(rng *rand.Rand) pod {
	labels := map[string]string{}
	for k, v := range p.labels {
		labels[k] = v
	}
	labels["app"] = fmt.Sprintf("app-%02d", rng.IntN(apps))
	labels["tier"] = tiers[rng.IntN(len(tiers))]
	p.labels = labels
	return p
}

// allPolicies draws the policies: five kinds in turn, the first five of a namespace by tier, further ones by
// app.
func (l *load) allPolicies() []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for ns := range l.namespaces {
		for k := range l.policies / l.namespaces {
			out = append(out, l.policy(ns, k))
		}
	}
	return out
}

func (l *load) policy(ns, k int) *networkingv1.NetworkPolicy {
	rng := rand.New(rand.NewPCG(l.seed, uint64(ns)<<32|uint64(k)|1<<63))
	own := func(tier int) *metav1.LabelSelector {
		if k < 5 {
			return matching("tier", tiers[tier])
		}
		return matching("app", fmt.Sprintf("app-%02d", (k/5*3+tier)%apps))
	}
	team := matching("team", fmt.Sprintf("team-%03d", ns/teamSize))
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespaceName(ns), Name: fmt.Sprintf("policy-%02d", k), UID: types.UID(fmt.Sprintf("%d-%d", ns, k)), Generation: 1,
	}}
	s := &np.Spec
	s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	allow := func(ports []networkingv1.NetworkPolicyPort, peers ...networkingv1.NetworkPolicyPeer) {
		s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: ports})
	}
	switch k % 5 {
	case 0: // from the own namespace and monitoring
		allow(nil, networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
		allow(tcp(9090), networkingv1.NetworkPolicyPeer{NamespaceSelector: matching(corev1.LabelMetadataName, namespaceName(0)), PodSelector: matching("app", "monitoring")})
	case 1: // frontends
		s.PodSelector = *own(0)
		allow(tcp(443), networkingv1.NetworkPolicyPeer{NamespaceSelector: team, PodSelector: own(0)})
		allow(tcp(80, 443), networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "192.168.0.0/16", Except: []string{fmt.Sprintf("192.168.%d.0/24", ns%256)}}})
	case 2: // backends
		s.PodSelector = *own(1)
		allow(named("http"), networkingv1.NetworkPolicyPeer{PodSelector: own(0)}, networkingv1.NetworkPolicyPeer{NamespaceSelector: team, PodSelector: own(1)})
	case 3: // data, also for one app of all production namespaces
		s.PodSelector = *own(2)
		allow(tcp(5432), networkingv1.NetworkPolicyPeer{PodSelector: own(1)}, networkingv1.NetworkPolicyPeer{NamespaceSelector: team, PodSelector: own(2)})
		allow(tcp(6379), networkingv1.NetworkPolicyPeer{NamespaceSelector: matching("stage", "production"), PodSelector: matching("app", fmt.Sprintf("app-%02d", rng.IntN(apps)))})
	case 4: // to DNS, frontends and the team
		s.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		call := func(ports []networkingv1.NetworkPolicyPort, peers ...networkingv1.NetworkPolicyPeer) {
			s.Egress = append(s.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: ports})
		}
		call(tcp(53), networkingv1.NetworkPolicyPeer{NamespaceSelector: matching(corev1.LabelMetadataName, namespaceName(0)), PodSelector: matching("app", "dns")})
		call(named("http"), networkingv1.NetworkPolicyPeer{PodSelector: own(0)})
		call(nil, networkingv1.NetworkPolicyPeer{NamespaceSelector: team})
	}
	return np
}

// everyPod allows ingress from every pod of every namespace.
func everyPod() *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(0), Name: "everyone", UID: "everyone"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}}}}
	return np
}

func matching(label, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{label: value}}
}

func tcp(numbers ...int) []networkingv1.NetworkPolicyPort {
	var out []networkingv1.NetworkPolicyPort
	for _, n := range numbers {
		out = append(out, networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(int32(n)))})
	}
	return out
}

func named(name string) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString(name))}}
}
