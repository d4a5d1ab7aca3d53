package replay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Cluster is what is known of the cluster besides policies and flows.
type Cluster struct {
	Nodes []corev1.Node
	// PodCIDRs hold pods' addresses only: an address in them that no pod is known for cannot be judged.
	PodCIDRs []netip.Prefix
}

// Answer is what a set of policies decides about a flow.
type Answer struct {
	Verdict Verdict `json:"verdict"`
	// Why is the decision of the end that denies, or what leaves the verdict unknown.
	Why string `json:"why,omitempty"`
	// Denies is set by direction, for each end whose policies deny.
	Denies [2]bool `json:"-"`
}

// Verdict of a set of policies.
type Verdict string

// The verdicts.
const (
	Allowed Verdict = "Allowed"
	Denied  Verdict = "Denied"
	Unknown Verdict = "Unknown"
)

// Outcome is what each set of policies decides about a flow, in the order of the sets.
type Outcome struct {
	Answers []Answer
	// Same is set for each set that is known to decide as the first does: also where the verdict itself is unknown.
	Same []bool
}

// comparison is sets of policies, made ready to be asked. It is not changed afterwards, so that several Judges may share it.
type comparison struct {
	sets        []*Policies
	features    *features
	nodeAt      map[netip.Addr]string
	nodesByName map[string]*corev1.Node
	podCIDRs    []netip.Prefix
	// added are the patterns of domain names that the first set does not have. No node was asked to learn these.
	added []string
	// clusterChanged and changed: which policies differ between the sets.
	clusterChanged bool
	changed        map[string]bool
}

// Judge decides about recorded flows by several sets of policies. It is not safe for concurrent use.
type Judge struct {
	*comparison
	identities map[string]uint32
	outcomes   map[question]*Outcome
}

// question is equal for flows that no policy can tell apart.
type question struct {
	source, destination uint32
	protocol            policy.Protocol
	port                uint16
	self, ownNode       bool
}

// NewJudge makes a Judge. The first set is that of today: domain names of its policies were learned when flows were recorded.
func NewJudge(cluster Cluster, sets ...Policies) *Judge {
	return newComparison(cluster, sets...).newJudge()
}

func (c *comparison) newJudge() *Judge {
	return &Judge{comparison: c, identities: map[string]uint32{}, outcomes: map[question]*Outcome{}}
}

func newComparison(cluster Cluster, sets ...Policies) *comparison {
	c := &comparison{nodeAt: map[netip.Addr]string{}, nodesByName: map[string]*corev1.Node{}, changed: map[string]bool{}, podCIDRs: slices.Clone(cluster.PodCIDRs)}
	for _, s := range sets {
		c.sets = append(c.sets, s.index())
	}
	c.features = featuresOf(cluster.Nodes, c.sets...)
	for i := range cluster.Nodes {
		n := &cluster.Nodes[i]
		c.nodesByName[n.Name] = n
		for _, a := range addressesOf(n) {
			c.nodeAt[a] = n.Name
		}
		for _, text := range n.Spec.PodCIDRs {
			if p, err := netip.ParsePrefix(text); err == nil {
				c.podCIDRs = append(c.podCIDRs, p.Masked())
			}
		}
	}
	first := c.sets[0]
	learned := featuresOf(nil, first).names
	c.added = slices.DeleteFunc(slices.Clone(c.features.names), func(n string) bool { return slices.Contains(learned, n) })
	for _, s := range c.sets[1:] {
		c.clusterChanged = c.clusterChanged || !first.sameCluster(s)
		for _, of := range [...]*Policies{first, s} {
			for ns := range of.byNamespace {
				c.changed[ns] = c.changed[ns] || !first.sameIn(ns, s)
			}
		}
	}
	return c
}

func (c *comparison) isPodAddress(a netip.Addr) bool {
	return a.IsValid() && slices.ContainsFunc(c.podCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
}

// unaffected reports whether no policy that can be about a flow differs between the sets.
func (c *comparison) unaffected(source, destination *end) bool {
	return !c.clusterChanged && !source.changed && !destination.changed
}

// Decide about a flow. The outcome is shared: it must not be changed.
func (j *Judge) Decide(f *observerapi.Flow) *Outcome {
	return j.decide(j.newEnd(f.Source), j.newEnd(f.Destination), f.Protocol, f.Port)
}

func (j *Judge) decide(source, destination *end, protocolName string, port uint16) *Outcome {
	protocol, ok := policy.ParseProtocol(protocolName)
	switch {
	case !ok:
		return j.unknown(ReasonProtocol)
	case port == 0 && protocol.HasPorts():
		return j.unknown(ReasonPort)
	}
	q := question{source: source.identity, destination: destination.identity, protocol: protocol, port: port,
		self:    source.Address.IsValid() && source.Address == destination.Address || source.pod != nil && source.UID != "" && source.UID == destination.UID,
		ownNode: source.node != "" && source.node == destination.nodeOf() || destination.node != "" && destination.node == source.nodeOf()}
	out := j.outcomes[q]
	if out == nil {
		out = j.answer(source, destination, q)
		j.outcomes[q] = out
	}
	return out
}

// nodeOf is the node that a pod runs on.
func (e *end) nodeOf() string {
	if e.pod == nil {
		return ""
	}
	return e.Node
}

func (j *Judge) unknown(reason Reason) *Outcome {
	out := &Outcome{}
	for range j.sets {
		out.Answers = append(out.Answers, Answer{Verdict: Unknown, Why: string(reason)})
		out.Same = append(out.Same, false)
	}
	return out
}

// answer a question by the flow that asked it first.
func (j *Judge) answer(source, destination *end, q question) *Outcome {
	if q.self { // "a pod cannot block access to itself"
		return j.same(Allowed)
	}
	for _, e := range [...]*end{source, destination} {
		if e.problem != "" {
			return j.unknown(e.problem)
		}
	}
	if source.pod == nil && destination.pod == nil {
		return j.same(Allowed)
	}
	pairs, ok := j.addresses(source, destination)
	if !ok {
		return j.unknown(ReasonManyBlock)
	}
	var out *Outcome
	for _, p := range pairs {
		out = out.or(j.at(source, destination, p, q), ReasonAddress)
	}
	if node, ok := ownNodeMaybe(source, destination); ok {
		source.pod, destination.pod = on(node, source.pod), on(node, destination.pod)
		for _, p := range pairs {
			out = out.or(j.at(source, destination, p, q), ReasonOwnNode)
		}
		source.pod, destination.pod = on("", source.pod), on("", destination.pod)
	}
	return out
}

// or is what is known if the outcome is one of two.
func (o *Outcome) or(other *Outcome, reason Reason) *Outcome {
	if o == nil {
		return other
	}
	for i := range o.Answers {
		o.Same[i] = o.Same[i] && other.Same[i]
		if o.Answers[i].Verdict != other.Answers[i].Verdict {
			o.Answers[i] = Answer{Verdict: Unknown, Why: string(reason)}
		}
	}
	return o
}

// ownNodeMaybe is the node at one end of a flow, if it is not known whether the pod at the other end runs there.
func ownNodeMaybe(source, destination *end) (node string, ok bool) {
	for _, pair := range [...][2]*end{{source, destination}, {destination, source}} {
		if pair[0].node != "" && pair[1].pod != nil && pair[1].Node == "" {
			return pair[0].node, true
		}
	}
	return "", false
}

// on is a pod on a node, or nil if there is no pod.
func on(node string, pod *corev1.Pod) *corev1.Pod {
	if pod == nil {
		return nil
	}
	out := *pod
	out.Spec.NodeName = node
	return &out
}

func (j *Judge) same(v Verdict) *Outcome {
	out := &Outcome{}
	for range j.sets {
		out.Answers = append(out.Answers, Answer{Verdict: v})
		out.Same = append(out.Same, true)
	}
	return out
}

// maxTries is how many addresses are tried in place of those that were not kept.
const maxTries = 4096

// addresses that the ends of a flow may have had: those recorded or, for each that was not kept, one of each range that policies tell apart.
func (j *Judge) addresses(source, destination *end) (out [][2]netip.Addr, ok bool) {
	if source.Address.IsValid() && destination.Address.IsValid() {
		return [][2]netip.Addr{{source.Address, destination.Address}}, true
	}
	for family, starts := range j.features.starts {
		of := func(e *end) []netip.Addr {
			switch {
			case !e.Address.IsValid():
				return starts
			case familyOf(e.Address) == family:
				return []netip.Addr{e.Address}
			}
			return nil
		}
		sources, destinations := of(source), of(destination)
		if len(sources)*len(destinations) > maxTries {
			return nil, false
		}
		for _, s := range sources {
			for _, d := range destinations {
				if s == d { // two pods have two addresses; the next one is of the same range, unless the range has one
					d = d.Next()
				}
				out = append(out, [2]netip.Addr{s, d})
			}
		}
	}
	return out, true
}

// at answers for one pair of addresses.
func (j *Judge) at(source, destination *end, addresses [2]netip.Addr, q question) *Outcome {
	f := policy.Flow{Source: addresses[0], Destination: addresses[1], Protocol: q.protocol, Port: q.port}
	c := &reference.Cluster{Nodes: j.nodesOf(source, destination, f)}
	for _, e := range [...]*end{source, destination} {
		if e.pod == nil {
			continue
		}
		pod := *e.pod
		if addr := f.Source; e == source && addr != e.Address {
			setAddress(&pod, addr)
		} else if addr := f.Destination; e == destination && addr != e.Address {
			setAddress(&pod, addr)
		}
		c.Pods = append(c.Pods, pod)
		c.Namespaces = append(c.Namespaces, *e.ns)
	}
	if len(c.Namespaces) == 2 && c.Namespaces[0].Name == c.Namespaces[1].Name {
		c.Namespaces = c.Namespaces[:1]
	}
	known, possible := j.namesOf(destination, f.Destination)
	out := &Outcome{}
	for _, set := range j.sets {
		c.Policies = set.byNamespace[source.Namespace]
		if source.Namespace != destination.Namespace {
			c.Policies = slices.Concat(c.Policies, set.byNamespace[destination.Namespace])
		}
		c.ClusterPolicies, c.EnforceAudited = set.ClusterPolicies, set.EnforceAudited
		c.Names = known
		is := decisionOf(c, f)
		if possible != nil {
			c.Names = possible
			if decisionOf(c, f).Verdict != is.Verdict {
				is = Answer{Verdict: Unknown, Why: string(ReasonName)}
			}
		}
		out.Answers = append(out.Answers, is)
		out.Same = append(out.Same, is.Verdict != Unknown && is.Verdict == out.Answers[0].Verdict)
	}
	return out
}

// namesOf are the domain names that an address had when the flow was recorded, and those that it may have had besides; nil if there are none.
func (j *Judge) namesOf(destination *end, addr netip.Addr) (known, possible reference.Names) {
	if destination.pod != nil || destination.node != "" || len(j.features.names) == 0 {
		return nil, nil
	}
	known, all := reference.Names{}, reference.Names{}
	for _, n := range destination.DomainNames {
		known[n], all[n] = []netip.Addr{addr}, []netip.Addr{addr}
	}
	maybe := j.added
	if len(destination.DomainNames) >= agentapi.MaxDomainNames { // there may have been more
		maybe = j.features.names
	}
	for _, pattern := range maybe {
		name := pattern
		if base, isWildcard := strings.CutPrefix(pattern, "*"); isWildcard {
			name = "any" + base
		}
		all[name] = []netip.Addr{addr}
	}
	if len(all) == len(known) {
		return known, nil
	}
	return known, all
}

// nodesOf are the nodes that an end of a flow is. A node that is not known has no labels.
func (j *Judge) nodesOf(source, destination *end, f policy.Flow) (out []corev1.Node) {
	for _, e := range [...]struct {
		*end
		addr netip.Addr
	}{{source, f.Source}, {destination, f.Destination}} {
		if e.node == "" {
			continue
		}
		n := corev1.Node{}
		n.Name = e.node
		if known := j.nodesByName[e.node]; known != nil {
			n.Labels = known.Labels
		}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: e.addr.String()}}
		out = append(out, n)
	}
	return out
}

// decisionOf is the verdict about both directions. If both ends deny, the source's decision is quoted.
func decisionOf(c *reference.Cluster, f policy.Flow) Answer {
	out := Answer{Verdict: Allowed}
	for _, d := range [...]policy.Direction{policy.Egress, policy.Ingress} {
		is := c.Evaluate(d, f)
		if is.Allowed() {
			continue
		}
		if out.Denies[d] = true; out.Verdict == Allowed {
			out.Verdict, out.Why = Denied, describe(d, &is)
		}
	}
	return out
}

// describe the decision that denies.
func describe(d policy.Direction, is *reference.ClusterDecision) string {
	rule := is.Admin
	if is.Tier == policy.TierBaseline {
		rule = is.Baseline
	}
	if is.Tier != policy.TierNetworkPolicy && rule != nil {
		return fmt.Sprintf("%s: denied by rule %d of ClusterNetworkPolicy %s", strings.ToLower(d.String()), rule.Index, rule.Policy.Name)
	}
	var names []string
	for _, np := range is.NetworkPolicy.Isolating {
		names = append(names, np.Namespace+"/"+np.Name)
	}
	return fmt.Sprintf("%s: isolated by %s, no rule allows it", strings.ToLower(d.String()), strings.Join(names, ", "))
}
