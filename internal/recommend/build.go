package recommend

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replay"
)

// priority of ClusterNetworkPolicies with domain names: the last of the Admin tier, so that a policy that denies comes first.
const priority = 1000

// maxNames is how many domain names a peer of a ClusterNetworkPolicy has at most.
const maxNames = 25

// group is peers with the same ports.
type group struct {
	peers []place
	ports []policy.PortRange
	gaps  bool
	pairs []pair
}

// write policies for all units of the namespaces.
func (w *writer) write() *Result {
	out := &Result{Policies: []Policy{}}
	taken := map[string]bool{}
	for _, u := range slices.SortedFunc(slices.Values(w.units), compareUnits) {
		if !slices.Contains(w.o.Namespaces, u.namespace()) {
			continue
		}
		pairs := w.pairsOf(u)
		if u.selector == nil {
			out.Unselectable = append(out.Unselectable, u.parties()...)
			continue
		}
		if w.isGone(u) {
			continue
		}
		w.writeUnit(out, u, pairs, taken)
	}
	w.addNotes(out)
	return out
}

// pairsOf a unit by direction, in order.
func (w *writer) pairsOf(u *unit) (out [2][]pair) {
	for _, p := range slices.SortedFunc(maps.Keys(w.pairs), comparePairs) {
		if p.from.unit == u {
			out[policy.Egress] = append(out[policy.Egress], p)
		}
		if p.to.unit == u {
			out[policy.Ingress] = append(out[policy.Ingress], p)
		}
	}
	return out
}

// isGone reports whether no workload of a unit exists any more.
func (w *writer) isGone(u *unit) bool {
	return !slices.ContainsFunc(u.workloads, func(l *workload) bool { return !w.gone[l.party] })
}

func (w *writer) writeUnit(out *Result, u *unit, pairs [2][]pair, taken map[string]bool) {
	np := &networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}}
	np.Namespace, np.Name = u.namespace(), w.name(u, taken)
	np.Labels = w.labels()
	np.Spec.PodSelector = *u.selector.DeepCopy()
	p := Policy{NetworkPolicy: np, Workloads: u.parties()}
	for _, d := range policy.Directions {
		isolated := w.isIsolated(u, d, true)
		list := pairs[d]
		if w.o.OnlyMissing && isolated {
			list = slices.DeleteFunc(list, func(p pair) bool { return !w.isMissing(d, p) })
			if len(list) == 0 {
				continue
			}
			p.Staged = p.Staged || !w.isIsolated(u, d, false)
		}
		if len(list) == 0 {
			if !isolated {
				for _, party := range u.parties() {
					out.Silent = append(out.Silent, Silent{party, d.String()})
				}
			}
			continue
		}
		np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, networkingv1.PolicyType(d.String()))
		if d == policy.Egress {
			w.addDNS(&p, list)
			if c := w.namePolicy(u, list); c != nil {
				out.Policies = append(out.Policies, *c)
			}
			list = slices.DeleteFunc(slices.Clone(list), func(p pair) bool { return p.to.names != "" || w.dns.has(p) })
		}
		for _, g := range w.groups(d, list) {
			w.addRule(&p, d, &g)
		}
	}
	if p.Staged {
		np.Labels[v1alpha1.LabelEnforcement] = v1alpha1.LabelledAudit
	}
	if len(np.Spec.PolicyTypes) > 0 {
		out.Policies = append(out.Policies, p)
	}
}

// name of the policy of a unit: the workload's, unless another policy has it.
func (w *writer) name(u *unit, taken map[string]bool) string {
	name := u.party().Name
	for _, candidate := range []string{name, name + "-" + strings.ToLower(u.party().Kind), name + "-recommended", name + "-" + strings.ToLower(u.party().Kind) + "-recommended"} {
		key := u.namespace() + "/" + candidate
		if taken[key] || w.isForeign(u.namespace(), candidate) {
			continue
		}
		taken[key] = true
		return candidate
	}
	for i := 2; ; i++ {
		candidate := fmt.Sprintf("%s-recommended-%d", name, i)
		if key := u.namespace() + "/" + candidate; !taken[key] && !w.isForeign(u.namespace(), candidate) {
			taken[key] = true
			return candidate
		}
	}
}

// isForeign reports whether a NetworkPolicy of this name exists that was not recommended.
func (w *writer) isForeign(namespace, name string) bool {
	return slices.ContainsFunc(w.policiesToday().NetworkPolicies, func(np networkingv1.NetworkPolicy) bool {
		return np.Namespace == namespace && np.Name == name && (!isOwn(np.Labels) || w.o.OnlyMissing)
	})
}

func (w *writer) labels() map[string]string {
	out := map[string]string{managedByKey: managedBy}
	if w.o.Audit {
		out[v1alpha1.LabelEnforcement] = v1alpha1.LabelledAudit
	}
	return out
}

// isIsolated reports whether policies of today isolate all pods of a unit, with or without audited ones.
func (w *writer) isIsolated(u *unit, d policy.Direction, audited bool) bool {
	today := slices.DeleteFunc(slices.Clone(w.policiesToday().NetworkPolicies), func(np networkingv1.NetworkPolicy) bool {
		return !audited && policy.IsLabelledAudit(np.Labels)
	})
	for _, labels := range u.pods() {
		pod := &corev1.Pod{}
		pod.Namespace, pod.Labels = u.namespace(), labels
		if !slices.ContainsFunc(today, func(np networkingv1.NetworkPolicy) bool { return netpol.Selects(d, &np, pod) }) {
			return false
		}
	}
	return true
}

// isMissing reports whether policies of today, audited ones included, deny some traffic of a pair in a direction.
func (w *writer) isMissing(d policy.Direction, p pair) bool {
	if w.enforced == nil {
		today := w.policiesToday()
		today.EnforceAudited = true
		w.enforced = replay.NewJudge(w.in.Cluster, today)
	}
	return slices.ContainsFunc(w.pairs[p], func(t *item) bool { return w.enforced.Decide(t.Flow()).Answers[0].Denies[d] })
}

// groups of peers that have the same ports.
func (w *writer) groups(d policy.Direction, pairs []pair) []group {
	byPeer := map[place]*group{}
	for _, p := range pairs {
		peer := p.from
		if d == policy.Egress {
			peer = p.to
		}
		g := byPeer[peer]
		if g == nil {
			g = &group{peers: []place{peer}}
			byPeer[peer] = g
		}
		g.ports = append(g.ports, policy.PortRange{Protocol: p.protocol, First: p.port, Last: p.port})
		g.pairs = append(g.pairs, p)
	}
	byPorts := map[string]*group{}
	for _, peer := range slices.SortedFunc(maps.Keys(byPeer), comparePlaces) {
		g := byPeer[peer]
		g.ports, g.gaps = portsOf(g.ports, w.widen)
		key := fmt.Sprint(portText(g.ports), peer.unit == nil)
		if same := byPorts[key]; same != nil {
			same.peers = append(same.peers, peer)
			same.pairs = append(same.pairs, g.pairs...)
			same.gaps = same.gaps || g.gaps
			continue
		}
		byPorts[key] = g
	}
	return slices.SortedFunc(func(yield func(group) bool) {
		for _, g := range byPorts {
			if !yield(*g) {
				return
			}
		}
	}, func(a, b group) int {
		return cmp.Or(comparePlaces(a.peers[0], b.peers[0]), strings.Compare(portText(a.ports), portText(b.ports)))
	})
}

// addDNS adds the rule for DNS, whether or not it was asked.
func (w *writer) addDNS(p *Policy, pairs []pair) {
	r := networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{w.dns.peer}, Ports: networkPolicyPorts(w.dns.ports)}
	reason := Reason{DNS: true}
	for _, pair := range pairs {
		if w.dns.has(pair) {
			reason.Traffic = append(reason.Traffic, w.seen(pair, pair.to))
		}
	}
	p.NetworkPolicy.Spec.Egress = append(p.NetworkPolicy.Spec.Egress, r)
	p.Egress = append(p.Egress, reason)
}

// addRule for a group of peers.
func (w *writer) addRule(p *Policy, d policy.Direction, g *group) {
	var peers []networkingv1.NetworkPolicyPeer
	var networks []netip.Prefix
	reason := Reason{}
	for _, peer := range g.peers {
		if peer.unit == nil {
			networks = append(networks, peer.network)
			continue
		}
		is := peerOf(peer.unit.namespace(), peer.unit.selector)
		if peer.unit.namespace() == p.NetworkPolicy.Namespace {
			is.NamespaceSelector = nil
		}
		peers = append(peers, is)
	}
	for _, n := range joinNetworks(networks) {
		block := &networkingv1.IPBlock{CIDR: n.String()}
		if n.Bits() == 0 {
			block.Except = private[n.Addr().Is4()]
			reason.Notes = append(reason.Notes, fmt.Sprintf("more than %d networks were seen: every public address is allowed", manyNetworks))
		} else if !n.IsSingleIP() {
			reason.Notes = append(reason.Notes, n.String()+" stands for several addresses: see whose network it is")
		}
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: block})
	}
	if len(networks) > 0 && d == policy.Egress {
		reason.Notes = append(reason.Notes, "no domain name was recorded for these addresses")
	}
	if g.gaps {
		reason.Notes = append(reason.Notes, "so many ports were used that the range between them is allowed")
	}
	for _, pair := range g.pairs {
		reason.Traffic = append(reason.Traffic, w.seen(pair, pair.peer(d)))
	}
	reason.Traffic = sumSeen(reason.Traffic)
	reason.items = w.itemsOf(g.pairs)
	if d == policy.Ingress {
		p.NetworkPolicy.Spec.Ingress = append(p.NetworkPolicy.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers, Ports: networkPolicyPorts(g.ports)})
		p.Ingress = append(p.Ingress, reason)
		return
	}
	p.NetworkPolicy.Spec.Egress = append(p.NetworkPolicy.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers, Ports: networkPolicyPorts(g.ports)})
	p.Egress = append(p.Egress, reason)
}

func (p *pair) peer(d policy.Direction) place {
	if d == policy.Egress {
		return p.to
	}
	return p.from
}

func (w *writer) itemsOf(pairs []pair) (out []*item) {
	for _, p := range pairs {
		out = append(out, w.pairs[p]...)
	}
	return out
}

// seen is the traffic of a pair, with a peer.
func (w *writer) seen(p pair, peer place) Seen {
	out := Seen{Ports: portText([]policy.PortRange{{Protocol: p.protocol, First: p.port, Last: p.port}})}
	for _, t := range w.pairs[p] {
		out.Add(&t.Count)
	}
	switch {
	case peer.unit != nil:
		out.Peer = peer.unit.String()
	case peer.names != "":
		out.Peer = peer.names
	case peer.network.IsSingleIP():
		out.Peer = peer.network.Addr().String()
	default:
		out.Peer = peer.network.String()
	}
	return out
}

// String names the workloads of a unit.
func (u *unit) String() string {
	var names []string
	for _, p := range u.parties() {
		names = append(names, p.String())
	}
	return strings.Join(names, " and ")
}

// sumSeen puts the ports of a peer together.
func sumSeen(list []Seen) (out []Seen) {
	for _, s := range list {
		if n := len(out); n > 0 && out[n-1].Peer == s.Peer {
			out[n-1].Ports += ", " + s.Ports
			out[n-1].Add(&s.Count)
			continue
		}
		out = append(out, s)
	}
	return out
}

// namePolicy is a ClusterNetworkPolicy for the domain names that a unit's pods connected to, nil if there were none.
func (w *writer) namePolicy(u *unit, pairs []pair) *Policy {
	byName := w.namesOf(pairs)
	if len(byName) == 0 {
		return nil
	}
	c := &cnp.ClusterNetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: cnp.GroupVersion.String(), Kind: "ClusterNetworkPolicy"}}
	c.Name = strings.Trim(u.namespace()+"-"+u.party().Name, "-")
	if c.Name = c.Name[:min(len(c.Name), 57)] + "-names"; w.hasClusterPolicy(c.Name) {
		c.Name += "-recommended"
	}
	c.Labels = w.labels()
	c.Spec.Tier, c.Spec.Priority = cnp.AdminTier, priority
	c.Spec.Subject.Pods = &cnp.NamespacedPod{
		NamespaceSelector: metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: u.namespace()}},
		PodSelector:       *u.selector.DeepCopy(),
	}
	p := &Policy{ClusterPolicy: c, Workloads: u.parties()}
	for _, g := range nameGroups(byName, w.widen) {
		for names := range slices.Chunk(g.names, maxNames) {
			r := cnp.ClusterNetworkPolicyEgressRule{Action: cnp.ClusterNetworkPolicyRuleActionAccept}
			var peer cnp.ClusterNetworkPolicyEgressPeer
			for _, n := range names {
				peer.DomainNames = append(peer.DomainNames, cnp.DomainName(n))
			}
			r.To = []cnp.ClusterNetworkPolicyEgressPeer{peer}
			r.Protocols = clusterPorts(g.ports)
			reason := Reason{}
			for _, n := range names {
				for _, pair := range byName[n] {
					s := w.seen(pair, pair.to)
					s.Peer = n
					reason.Traffic = append(reason.Traffic, s)
				}
				reason.items = append(reason.items, w.itemsOf(byName[n])...)
			}
			reason.Traffic = sumSeen(reason.Traffic)
			c.Spec.Egress = append(c.Spec.Egress, r)
			p.Egress = append(p.Egress, reason)
		}
	}
	return p
}

func (w *writer) hasClusterPolicy(name string) bool {
	return slices.ContainsFunc(w.policiesToday().ClusterPolicies, func(c cnp.ClusterNetworkPolicy) bool {
		return c.Name == name && (!isOwn(c.Labels) || w.o.OnlyMissing)
	})
}

// namesOf pairs with domain names: for each pair one of the names of its address, those that stand for the most pairs first.
func (w *writer) namesOf(pairs []pair) map[string][]pair {
	left := slices.DeleteFunc(slices.Clone(pairs), func(p pair) bool { return p.to.names == "" })
	out := map[string][]pair{}
	for len(left) > 0 {
		number := map[string]int{}
		for _, p := range left {
			for _, n := range strings.Fields(p.to.names) {
				number[n]++
			}
		}
		best := slices.MaxFunc(slices.Sorted(maps.Keys(number)), func(a, b string) int {
			return cmp.Or(cmp.Compare(number[a], number[b]), strings.Compare(b, a))
		})
		var rest []pair
		for _, p := range left {
			if slices.Contains(strings.Fields(p.to.names), best) {
				out[best] = append(out[best], p)
			} else {
				rest = append(rest, p)
			}
		}
		left = rest
	}
	return out
}

// nameGroup is names with the same ports.
type nameGroup struct {
	names []string
	ports []policy.PortRange
}

func nameGroups(byName map[string][]pair, widen bool) (out []nameGroup) {
	at := map[string]int{}
	for _, n := range slices.Sorted(maps.Keys(byName)) {
		var ports []policy.PortRange
		for _, p := range byName[n] {
			ports = append(ports, policy.PortRange{Protocol: p.protocol, First: p.port, Last: p.port})
		}
		ports, _ = portsOf(ports, widen)
		i, ok := at[portText(ports)]
		if !ok {
			i = len(out)
			at[portText(ports)] = i
			out = append(out, nameGroup{ports: ports})
		}
		out[i].names = append(out[i].names, n)
	}
	return out
}

func clusterPorts(ports []policy.PortRange) (out []cnp.ClusterNetworkPolicyProtocol) {
	for _, p := range ports {
		port := &cnp.Port{Number: int32(p.First)}
		if p.First != p.Last {
			port = &cnp.Port{Range: &cnp.PortRange{Start: int32(p.First), End: int32(p.Last)}}
		}
		var is cnp.ClusterNetworkPolicyProtocol
		switch p.Protocol {
		case policy.TCP:
			is.TCP = &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		case policy.UDP:
			is.UDP = &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		default:
			is.SCTP = &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		}
		out = append(out, is)
	}
	return out
}

// addNotes about workloads.
func (w *writer) addNotes(out *Result) {
	note := func(text string, parties map[replay.Party]bool) {
		var names []string
		for p, is := range parties {
			if is && slices.Contains(w.o.Namespaces, p.Namespace) {
				names = append(names, p.String())
			}
		}
		if slices.Sort(names); len(names) > 0 {
			out.Notes = append(out.Notes, text+": "+strings.Join(names, ", "))
		}
	}
	note("do not exist any more, so they get no policy", w.gone)
	note("had other labels when they were recorded; the policies are for those of today", w.relabeled)
	for _, u := range w.units {
		if len(u.workloads) > 1 && slices.Contains(w.o.Namespaces, u.namespace()) {
			out.Notes = append(out.Notes, "no label tells these apart, so they share a policy: "+u.String())
		}
	}
}
