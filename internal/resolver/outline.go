package resolver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

const (
	// largePolicy is the size of a NetworkPolicy's spec, in bytes of its protobuf encoding, beyond which it is kept as an outline. The
	// largest policies are 100 times as large.
	largePolicy = 8 << 10
	// largeSpec is how many peers, excepts, names, ports and indexes of rules a PolicyEndpoint may have together and still be kept whole.
	largeSpec = 256
	// outlined is the action of a rule and the type of a policy that only an outline has: the API server accepts neither.
	outlined = "Outline"
)

// Outline returns a spec as it is kept while nothing has to be written: if it is large, without its rules. In each direction one rule
// stands for all of them. Its name is their hash, its index is how many peers they have, and its peers are their groups. So outlines
// are equal if the specs are, and refer to the same groups.
func Outline(spec *v1alpha1.PolicyEndpointSpec) *v1alpha1.PolicyEndpointSpec {
	if !isLarge(spec) {
		return spec
	}
	out := *spec
	out.Ingress, out.Egress = outlineRules(spec.Ingress), outlineRules(spec.Egress)
	return &out
}

// IsOutline reports whether a spec is an outline, which cannot be written.
func IsOutline(spec *v1alpha1.PolicyEndpointSpec) bool {
	return isOutline(spec.Ingress) || isOutline(spec.Egress)
}

// SameSpec reports whether two specs are equal. Each may be an outline.
func SameSpec(a, b *v1alpha1.PolicyEndpointSpec) bool {
	if IsOutline(a) || IsOutline(b) {
		a, b = Outline(a), Outline(b)
	}
	return equality.Semantic.DeepEqual(a, b)
}

// PeerCount is the number of peers of rules, which may be those of an outline.
func PeerCount(rules []v1alpha1.Rule) (n int32) {
	if isOutline(rules) {
		return rules[0].RuleIndexes[0]
	}
	for i := range rules {
		n += int32(len(rules[i].Peers))
	}
	return n
}

func isOutline(rules []v1alpha1.Rule) bool { return len(rules) == 1 && rules[0].Action == outlined }

// isLarge reports whether a spec is whole, and large enough for an outline.
func isLarge(spec *v1alpha1.PolicyEndpointSpec) bool {
	return !IsOutline(spec) && sizeOf(spec.Ingress)+sizeOf(spec.Egress) > largeSpec
}

func sizeOf(rules []v1alpha1.Rule) (n int) {
	for i := range rules {
		r := &rules[i]
		n += 1 + len(r.RuleIndexes) + len(r.Ports) + len(r.Peers)
		for j := range r.Peers {
			n += len(r.Peers[j].Except) + len(r.Peers[j].DomainNames)
		}
	}
	return n
}

func outlineRules(rules []v1alpha1.Rule) []v1alpha1.Rule {
	if len(rules) == 0 {
		return nil
	}
	data, err := json.Marshal(rules)
	if err != nil { // these types have nothing that JSON cannot express
		panic(fmt.Sprintf("encode rules: %v", err))
	}
	sum := sha256.Sum256(data)
	out := v1alpha1.Rule{Action: outlined, Name: hex.EncodeToString(sum[:]), RuleIndexes: []int32{PeerCount(rules)}}
	seen := map[v1alpha1.GroupReference]bool{}
	for i := range rules {
		for _, p := range rules[i].Peers {
			if p.Group != nil && !seen[*p.Group] {
				seen[*p.Group] = true
				out.Peers = append(out.Peers, v1alpha1.Peer{Group: p.Group})
			}
		}
	}
	return []v1alpha1.Rule{out}
}

// OutlinePolicy returns a NetworkPolicy as a cache keeps it: if it is large, without its spec. A Resolver that is given it before the
// start leaves the policy's PolicyEndpoint as it is, and asks for all of the policy afterwards (see Changes.Again).
func OutlinePolicy(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	if np.Spec.Size() <= largePolicy {
		return np
	}
	out := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: np.Namespace, Name: np.Name, UID: np.UID, ResourceVersion: np.ResourceVersion, Generation: np.Generation,
		CreationTimestamp: np.CreationTimestamp, DeletionTimestamp: np.DeletionTimestamp,
	}}
	out.Spec.PolicyTypes = []networkingv1.PolicyType{outlined}
	return out
}

// IsOutline reports whether the source has no spec.
func (s *Source) IsOutline() bool {
	return len(s.Spec.PolicyTypes) == 1 && s.Spec.PolicyTypes[0] == outlined
}

// PrepareOutline is Prepare for a policy of which the Resolver then only keeps an outline if it is large. Policies of other kinds are kept
// whole: the caller's cache does not have them.
func PrepareOutline(s *Source) PreparedPolicy {
	p := Prepare(s)
	if s.kind == policyKind {
		p.policy = NetworkPolicy(OutlinePolicy(s.NetworkPolicy))
	}
	return p
}

// setLater takes over what an earlier resolver wrote for a policy of which there is an outline only, so that it stays in force until
// all of the policy is there. Without a PolicyEndpoint there is nothing to take over.
func (r *Resolver) setLater(s *Source) {
	r.again = append(r.again, s)
	p := r.newPolicy(s, &normalized{})
	spec, groups := r.existing.inForce(p.endpoint.Name, r.names(s.Namespace))
	if spec == nil {
		return
	}
	p.normalized = nil
	e := &p.endpoint
	e.IsPending, e.Spec = true, spec
	e.Groups = r.acquireAll(s.Namespace, groups)
	p.charged = r.demandsOfGroups(s.Namespace, groups)
	r.tenant(s.Namespace).charge(p.charged)
	r.policies[e.Policy], r.endpoints[e.Name] = p, p
}

// Whole returns what a PolicyEndpoint should be with all of its spec, of which the Resolver has an outline. p is the policy as it is
// now. It returns false if the spec does not follow from that: the policy changed in the meantime, or a version before is in force.
func (r *Resolver) Whole(name types.NamespacedName, p PreparedPolicy) (Endpoint, bool) {
	state, ok := r.endpoints[name]
	if !ok || state.over != nil || state.source.UID != p.policy.UID {
		return Endpoint{}, false
	}
	renderer := r.renderer(p.policy.Namespace)
	out := renderer.render(p.policy, p.normalized)
	if out.spec == nil || !SameSpec(out.spec, state.endpoint.Spec) {
		return Endpoint{}, false
	}
	e := state.endpoint
	e.Spec = out.spec
	return e, true
}

// Source returns the policy of a PolicyEndpoint as the Resolver keeps it.
func (r *Resolver) Source(name types.NamespacedName) (*Source, bool) {
	p, ok := r.endpoints[name]
	if !ok {
		return nil, false
	}
	return p.source, true
}

// Lost records that a PolicyEndpoint has to be written, but that its spec does not follow from its policy any more (see Whole). When the
// policy is set again, the version before does not stay.
func (r *Resolver) Lost(name types.NamespacedName) {
	if p, ok := r.endpoints[name]; ok {
		p.lost = true
	}
}
