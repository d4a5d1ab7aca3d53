package recommend

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/replay"
	workloads "github.com/kidoban/kidoban/internal/workload"
)

// item is recorded traffic, with the labels that its ends have today.
type item struct {
	replay.Traffic
	protocol policy.Protocol
	// today is what the policies of today decide.
	today replay.Answer
	// listed is set if it is left to a decision or needs no rule.
	listed *Decision
}

// allowed reports whether it was allowed when it was recorded, and is allowed today.
func (t *item) allowed() bool {
	return (t.Verdict == observerapi.Allowed || t.Verdict == observerapi.WouldBeDeny) && t.today.Verdict != replay.Denied
}

// other end than this one.
func (t *item) other(e *observerapi.End) *observerapi.End {
	if e == t.Source {
		return t.Destination
	}
	return t.Source
}

// place is one end of a pair: a unit, a node, a network outside, or the domain names of an address outside.
type place struct {
	unit    *unit
	node    string
	network netip.Prefix
	names   string
}

// pair is traffic between two places.
type pair struct {
	from, to place
	protocol policy.Protocol
	port     uint16
}

func comparePlaces(a, b place) int {
	party := func(p place) replay.Party {
		if p.unit == nil {
			return replay.Party{}
		}
		return p.unit.party()
	}
	return cmp.Or(party(a).Compare(party(b)), cmp.Compare(a.node, b.node), cmp.Compare(a.names, b.names), a.network.Compare(b.network))
}

func comparePairs(a, b pair) int {
	return cmp.Or(comparePlaces(a.from, b.from), comparePlaces(a.to, b.to), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
}

// writer writes policies.
type writer struct {
	in    *Input
	o     Options
	widen bool

	workloads map[replay.Party]*workload
	units     []*unit
	items     []*item
	decisions map[decisionKey]*Decision
	pairs     map[pair][]*item
	own       map[netip.Addr]bool // addresses of pods, nodes and Services
	services  map[netip.Addr]bool
	relabeled map[replay.Party]bool
	dns       dns
	enforced  *replay.Judge // of today's policies, as if none were audited
	gone      map[replay.Party]bool
}

func newWriter(in *Input, o Options, widen bool) *writer {
	w := &writer{in: in, o: o, widen: widen, workloads: map[replay.Party]*workload{}, decisions: map[decisionKey]*Decision{}, pairs: map[pair][]*item{},
		own: map[netip.Addr]bool{}, services: map[netip.Addr]bool{}, relabeled: map[replay.Party]bool{}, gone: map[replay.Party]bool{}}
	w.readObjects()
	w.readItems()
	byNamespace := map[string][]*workload{}
	for _, l := range w.workloads {
		byNamespace[l.party.Namespace] = append(byNamespace[l.party.Namespace], l)
	}
	for _, ns := range slices.Sorted(maps.Keys(byNamespace)) {
		w.units = append(w.units, unitsOf(byNamespace[ns])...)
	}
	w.dns = w.findDNS()
	w.classify()
	return w
}

// readObjects notes the workloads of today, and the addresses that the cluster has.
func (w *writer) readObjects() {
	if w.in.Objects == nil {
		return
	}
	note := func(into map[netip.Addr]bool, texts ...string) {
		for _, text := range texts {
			if a, err := netip.ParseAddr(text); err == nil {
				into[a.Unmap()], w.own[a.Unmap()] = true, true
			}
		}
	}
	for i := range w.in.Objects.Pods {
		p := &w.in.Objects.Pods[i]
		for _, ip := range p.Status.PodIPs {
			note(w.own, ip.IP)
		}
		if !p.Spec.HostNetwork {
			w.addPod(partyOf(p), p.Labels)
		}
	}
	for i := range w.in.Objects.Services {
		note(w.services, w.in.Objects.Services[i].Spec.ClusterIPs...)
	}
	for i := range w.in.Nodes {
		for _, a := range w.in.Nodes[i].Status.Addresses {
			note(w.own, a.Address)
		}
	}
}

func partyOf(p *corev1.Pod) replay.Party {
	owner := workloads.Of(p)
	return replay.Party{Namespace: p.Namespace, Kind: owner.Kind, Name: owner.Name}
}

func (w *writer) addPod(party replay.Party, labels map[string]string) {
	l := w.workloads[party]
	if l == nil {
		l = &workload{party: party}
		w.workloads[party] = l
	}
	stable := maps.Clone(labels)
	if stable == nil {
		stable = map[string]string{}
	}
	maps.DeleteFunc(stable, func(key, value string) bool { return !isStable(key, value) })
	if !slices.ContainsFunc(l.pods, func(p map[string]string) bool { return maps.Equal(p, stable) }) {
		l.pods = append(l.pods, stable)
	}
}

// readItems gives pods of workloads that have other labels today these labels.
func (w *writer) readItems() {
	current := maps.Clone(w.workloads)
	labelsToday := map[replay.Party]map[string]string{}
	if w.in.Objects != nil {
		for i := range w.in.Objects.Pods {
			if p := &w.in.Objects.Pods[i]; !p.Spec.HostNetwork && labelsToday[partyOf(p)] == nil {
				labelsToday[partyOf(p)] = p.Labels
			}
		}
	}
	ends := map[*observerapi.End]*observerapi.End{}
	today := func(e *observerapi.End) *observerapi.End {
		if is := ends[e]; is != nil {
			return is
		}
		is := *e
		ends[e] = &is
		if e.Hidden || e.Namespace == "" || e.IsNode || e.NamespaceLabels == nil {
			return &is
		}
		for i := range w.namespaces() {
			if ns := &w.in.Objects.Namespaces[i]; ns.Name == e.Namespace && ns.Labels != nil {
				is.NamespaceLabels = maps.Clone(ns.Labels)
				is.NamespaceLabels[corev1.LabelMetadataName] = ns.Name
			}
		}
		party := replay.PartyOf(e)
		now := current[party]
		if now == nil {
			w.gone[party] = w.in.Objects != nil && len(current) > 0
			w.addPod(party, e.Labels)
			return &is
		}
		stable := maps.Clone(e.Labels)
		maps.DeleteFunc(stable, func(key, value string) bool { return !isStable(key, value) })
		if !slices.ContainsFunc(now.pods, func(p map[string]string) bool { return maps.Equal(p, stable) }) {
			w.relabeled[party] = true
			is.Labels = labelsToday[party]
		}
		return &is
	}
	for i := range w.in.Traffic {
		t := &item{Traffic: w.in.Traffic[i]}
		t.Source, t.Destination = today(t.Source), today(t.Destination)
		w.items = append(w.items, t)
	}
	judge := replay.NewJudge(w.in.Cluster, w.policiesToday())
	for _, t := range w.items {
		if !t.Reply {
			t.today = judge.Decide(t.Flow()).Answers[0]
		}
	}
}

func (w *writer) namespaces() []corev1.Namespace {
	if w.in.Objects == nil {
		return nil
	}
	return w.in.Objects.Namespaces
}

func (w *writer) policiesToday() replay.Policies {
	if w.in.Objects == nil {
		return replay.Policies{}
	}
	return w.in.Objects.Policies
}

func (w *writer) isTarget(e *observerapi.End) bool {
	return e.Namespace != "" && !e.IsNode && slices.Contains(w.o.Namespaces, e.Namespace)
}

// classify traffic into what needs a rule, by pair, and what a person should decide about.
func (w *writer) classify() {
	scanners := w.findScanners()
	var kept []*item
	for _, t := range w.items {
		if t.Reply || !w.isTarget(t.Source) && !w.isTarget(t.Destination) {
			continue
		}
		if why, reason, ok := w.decide(t, scanners); ok {
			w.list(t, why, reason)
		} else if !w.needsNoRule(t) {
			kept = append(kept, t)
		}
	}
	networks := w.networksOf(kept)
	for _, t := range kept {
		p := pair{w.place(t, t.Source, networks), w.place(t, t.Destination, networks), t.protocol, t.Port}
		w.pairs[p] = append(w.pairs[p], t)
	}
	for p, items := range w.pairs {
		why := pairWhy(items)
		if w.dns.has(p) {
			why = ""
		}
		if w.needsLabels(p.from, p.to) || w.needsLabels(p.to, p.from) {
			why = NoLabels
		}
		if why == "" {
			continue
		}
		for _, t := range items {
			w.list(t, why, "")
		}
		delete(w.pairs, p)
	}
}

// needsLabels reports whether a rule for one end cannot select the other.
func (w *writer) needsLabels(self, peer place) bool {
	return self.unit != nil && self.unit.selector != nil && slices.Contains(w.o.Namespaces, self.unit.namespace()) && peer.unit != nil && peer.unit.selector == nil
}

// pairWhy is why a pair's traffic is left to a decision, empty if it is not.
func pairWhy(items []*item) Why {
	var connections uint64
	for _, t := range items {
		connections += t.Connections
	}
	switch connections {
	case 0:
		return Continued
	case 1:
		return SeenOnce
	}
	return ""
}

// decide whether a person should decide about traffic, and why.
func (w *writer) decide(t *item, scanners map[scan]bool) (why Why, reason replay.Reason, ok bool) {
	var known bool
	t.protocol, known = policy.ParseProtocol(t.Protocol)
	switch {
	case t.Verdict == observerapi.Denied || t.Verdict == observerapi.WouldBeAllow || t.today.Verdict == replay.Denied:
		return DeniedToday, "", true
	case t.today.Verdict == replay.Unknown:
		return Undecidable, replay.Reason(t.today.Why), true
	case !known:
		return Undecidable, replay.ReasonProtocol, true
	case w.needsNoRule(t):
		return "", "", false
	case t.Source.IsNode:
		return SNATed, "", true
	case !t.protocol.HasPorts():
		return NoPorts, "", true
	case t.Port == 0:
		return Undecidable, replay.ReasonPort, true
	case w.services[t.Destination.Address] && t.Destination.Namespace == "":
		return ServiceIP, "", true
	}
	for _, e := range [...]*observerapi.End{t.Source, t.Destination} {
		switch {
		case e.Hidden:
			return Undecidable, replay.ReasonHidden, true
		case e.Namespace == "" && !e.Address.IsValid():
			return Undecidable, replay.ReasonAddress, true
		case e.Namespace != "" && e.NamespaceLabels == nil:
			return Undecidable, replay.ReasonLabels, true
		}
	}
	if scanners[scan{replay.PartyOf(t.Source), addressOutside(t.Source)}] && t.Connections <= fewConnections {
		return Scanner, "", true
	}
	return "", "", false
}

// needsNoRule is true for traffic that NetworkPolicies do not apply to: of a pod with itself, and with its own node.
func (w *writer) needsNoRule(t *item) bool {
	s, d := t.Source, t.Destination
	return s.Address.IsValid() && s.Address == d.Address || s.UID != "" && s.UID == d.UID ||
		(s.IsNode || d.IsNode) && s.Node != "" && s.Node == d.Node
}

// scan is a source of traffic: a workload, or an address.
type scan struct {
	replay.Party
	address netip.Addr
}

func addressOutside(e *observerapi.End) netip.Addr {
	if e.Namespace == "" {
		return e.Address
	}
	return netip.Addr{}
}

// What makes a source a scanner: this many places in the cluster with few connections each, of which a third were denied or which are as many
// ports of one workload.
const (
	fewConnections = 2
	manyPlaces     = 15
	manyPorts      = 5
)

func (w *writer) findScanners() map[scan]bool {
	type target struct {
		to       replay.Party
		protocol string
		port     uint16
	}
	type seen struct {
		connections uint64
		denied      bool
	}
	found := map[scan]map[target]*seen{}
	for _, t := range w.items {
		if t.Reply || t.Destination.Namespace == "" {
			continue
		}
		s := scan{replay.PartyOf(t.Source), addressOutside(t.Source)}
		if found[s] == nil {
			found[s] = map[target]*seen{}
		}
		k := target{replay.PartyOf(t.Destination), t.Protocol, t.Port}
		if found[s][k] == nil {
			found[s][k] = &seen{}
		}
		found[s][k].connections += t.Connections
		found[s][k].denied = found[s][k].denied || !t.allowed()
	}
	out := map[scan]bool{}
	for s, targets := range found {
		few, denied, ports := 0, 0, map[replay.Party]int{}
		for k, is := range targets {
			if is.connections > fewConnections {
				continue
			}
			few++
			ports[k.to]++
			if is.denied {
				denied++
			}
		}
		most := 0
		for _, n := range ports {
			most = max(most, n)
		}
		out[s] = few >= manyPlaces && (denied*3 >= few || most >= manyPorts)
	}
	return out
}

// place of an end of traffic that needs a rule.
func (w *writer) place(t *item, e *observerapi.End, networks map[outside]netip.Prefix) place {
	switch {
	case e.Namespace != "" && !e.IsNode:
		return place{unit: w.workloads[replay.PartyOf(e)].unit}
	case e == t.Destination && len(e.DomainNames) > 0:
		return place{names: strings.Join(e.DomainNames, " ")}
	}
	o := outsideOf(t, e)
	o.unit = w.unitOf(t.other(e))
	return place{network: networks[o]}
}

type decisionKey struct {
	why      Why
	from, to replay.Party
	fromText string
	toText   string
	protocol string
	port     uint16
	reason   replay.Reason
}

// list traffic for a decision.
func (w *writer) list(t *item, why Why, reason replay.Reason) {
	k := decisionKey{why, replay.PartyOf(t.Source), replay.PartyOf(t.Destination), textOf(t.Source), textOf(t.Destination), t.Protocol, t.Port, reason}
	d := w.decisions[k]
	if d == nil {
		d = &Decision{Why: why, From: k.from, To: k.to, FromText: k.fromText, ToText: k.toText, Protocol: t.Protocol, Port: t.Port, Reason: reason}
		w.decisions[k] = d
	}
	d.Add(&t.Count)
	t.listed = d
}

// textOf an end: the workload, the node, or the address with its names.
func textOf(e *observerapi.End) string {
	p := replay.PartyOf(e)
	if p.Kind != replay.KindOutside {
		return cmp.Or(p.String(), e.Namespace)
	}
	text := "an address that was not kept"
	if e.Address.IsValid() {
		text = e.Address.String()
	}
	if p.Name != "" {
		text = p.Name + " (" + text + ")"
	}
	return text
}
