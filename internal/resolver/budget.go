package resolver

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Budget is what the policies of one namespace may ask for together. Zero means no limit.
//
// A policy is decided on when it asks for something that the policies in force of its namespace do not use. So a policy in
// force stays in force whatever other tenants' pods do, and whatever other policies ask for. Those that wait for room are
// decided on oldest first, whenever a policy of their namespace changes.
type Budget struct {
	// Groups is the maximum number of different groups. A port name of an egress rule counts as numbersOfNamespace groups
	// with each of its peers, whatever numbers the pods give to it.
	Groups int
	// Addresses is the maximum number of addresses of all these groups, at the time of the decision.
	Addresses int
}

// demandKey identifies a peer of pods, together with the port name that narrows it.
type demandKey struct {
	group policy.GroupKey // without the port
	name  portName
}

// groups is what a demand counts.
func (k demandKey) groups() int {
	if k.name != (portName{}) {
		return numbersOfNamespace
	}
	return 1
}

// demands are the peers of pods that a policy asks for.
type demands map[demandKey]*podSet

func (d demands) groups() (n int) {
	for key := range d {
		n += key.groups()
	}
	return n
}

// within reports whether some others contain all of the demands.
func (d demands) within(others ...demands) bool {
	for key := range d {
		if !slices.ContainsFunc(others, func(o demands) bool { _, ok := o[key]; return ok }) {
			return false
		}
	}
	return true
}

func (d demands) add(r *renderer, set *podSet, name portName) {
	d[demandKey{r.ref(set, nil).key, name}] = set
}

// demandsOf are those of a policy.
func (r *Resolver) demandsOf(from string, n *normalized) demands {
	out, names := demands{}, r.names(from)
	for _, peers := range n.peers {
		for i := range peers {
			if peers[i].peer.pods != nil {
				out.add(names, peers[i].peer.pods, peers[i].name)
			}
		}
	}
	return out
}

// demandsOfGroups are those of groups.
func (r *Resolver) demandsOfGroups(from string, groups []groupRef) demands {
	out, names := demands{}, r.names(from)
	for _, ref := range groups {
		var name portName
		if ref.port != nil {
			name = portName{ref.port.Protocol, ref.port.Name}
		}
		out.add(names, ref.set, name)
	}
	return out
}

// names returns a renderer that names groups.
func (r *Resolver) names(from string) *renderer {
	return &renderer{namespace: from, shared: r.options.SharedNamespace}
}

// tenant is what the policies in force of one namespace ask for.
type tenant struct {
	users   map[demandKey]int
	demands demands
	groups  int
	waiting map[types.NamespacedName]*policyState // policies over the budget
	// full is true after a policy had too many addresses, until the end of the change: then no other is counted, because
	// that takes time, which grows with the cluster.
	full bool
}

func (r *Resolver) tenant(namespace string) *tenant {
	t, ok := r.tenants[namespace]
	if !ok {
		t = &tenant{users: map[demandKey]int{}, demands: demands{}, waiting: map[types.NamespacedName]*policyState{}}
		r.tenants[namespace] = t
	}
	return t
}

func (t *tenant) charge(d demands) {
	for key, set := range d {
		if t.users[key]++; t.users[key] == 1 {
			t.demands[key] = set
			t.groups += key.groups()
		}
	}
}

func (t *tenant) refund(d demands) {
	for key := range d {
		if t.users[key]--; t.users[key] == 0 {
			delete(t.users, key)
			delete(t.demands, key)
			t.groups -= key.groups()
		}
	}
}

// fit says whether a policy fits into the budget of its namespace.
type fit int

const (
	fits   fit = iota
	mayFit     // unless its groups have too many addresses
	tooManyGroups
)

// compare compares what a policy asks for with what the budget leaves, without counting addresses. had returns the demands of the
// policy's version in force, which the tenant is not charged for at this moment.
func (r *Resolver) compare(p *policyState, had func() demands) (f fit, groups int) {
	b, t := r.options.Budget, r.tenant(p.source.Namespace)
	groups = t.groups
	for key := range p.demands {
		if t.users[key] == 0 {
			groups += key.groups()
		}
	}
	tooMany := b.Groups > 0 && groups > b.Groups
	switch {
	case !tooMany && (b.Addresses == 0 || groups*r.podAddresses <= b.Addresses) || p.demands.within(t.demands, had()):
		return fits, groups
	case tooMany:
		return tooManyGroups, groups
	}
	return mayFit, groups
}

// exceeds returns the problem of a policy that asks for more than the budget leaves; nil if it fits. had is that of compare.
func (r *Resolver) exceeds(p *policyState, had func() demands) *Problem {
	b, t := r.options.Budget, r.tenant(p.source.Namespace)
	switch fit, groups := r.compare(p, had); fit {
	case fits:
		return nil
	case mayFit:
	case tooManyGroups:
		return overBudget("with this policy, the namespace's policies ask for %d groups of pods, which are different peers, of %d at most; use fewer different peers", groups, b.Groups)
	}
	switch f := r.filling; {
	case f != nil && f.counted && f.policy.source == p.source:
		t.full = f.over
	case !t.full:
		t.full = r.addressesExceed(p, t, b.Addresses)
	}
	if t.full {
		return overBudget("with this policy, the groups of the namespace's policies have more than %d addresses; use peers that select fewer pods, or fewer different ones", b.Addresses)
	}
	return nil
}

// addressesExceed reports whether a policy's demands and those of the tenant come to more addresses than a limit.
func (r *Resolver) addressesExceed(p *policyState, t *tenant, limit int) bool {
	for key, set := range t.demands {
		if limit -= r.size(p.source.Namespace, key, set, limit); limit < 0 {
			return true
		}
	}
	for key, set := range p.demands {
		if t.users[key] > 0 {
			continue
		}
		if limit -= r.size(p.source.Namespace, key, set, limit); limit < 0 {
			return true
		}
	}
	return false
}

func overBudget(format string, args ...any) *Problem {
	return &Problem{Reason: v1alpha1.ReasonOverBudget, Message: "spec: " + fmt.Sprintf(format, args...)}
}

// size is the number of addresses that a demand comes to. It stops counting beyond most.
func (r *Resolver) size(from string, key demandKey, set *podSet, most int) (n int) {
	if r.started {
		if m := r.lookUp(from, set); m != nil {
			if n, ok := r.demandSize(m, key.name, set); ok {
				return n
			}
		}
	} else {
		if have, ok := r.existing.sizes[key]; ok {
			return have
		}
		defer func() {
			if n <= most {
				r.existing.sizes[key] = n
			}
		}()
	}
	for p := range r.podsOf(from, set) {
		if key.name == (portName{}) || p.has(key.name) {
			if n += len(set.within.of(p)); n > most {
				break
			}
		}
	}
	return n
}

// podsOf yields the pods of a set that a policy of a namespace selects, in no order.
func (r *Resolver) podsOf(from string, set *podSet) iter.Seq[*pod] {
	return func(yield func(*pod) bool) {
		if set.namespaces == nil {
			if ns := r.namespaces[from]; ns != nil {
				ns.eachPeer(set.pods, yield)
			}
			return
		}
		for _, ns := range r.namespaces {
			if ns.known && set.namespaces.matches(ns.labels) && !ns.eachPeer(set.pods, yield) {
				return
			}
		}
	}
}

// lookUp returns the matcher of a set of pods that a policy of a namespace selects, or nil.
func (r *Resolver) lookUp(from string, set *podSet) *matcher {
	var s *scope
	switch ns := r.namespaces[from]; {
	case set.namespaces != nil:
		s = r.scopes[set.namespaces.key()]
	case ns != nil:
		s = ns.local
	}
	if s == nil {
		return nil
	}
	return s.matchers[set.pods.key()]
}

// demandSize is the number of addresses of the groups of a demand, or false if there are none.
func (r *Resolver) demandSize(m *matcher, name portName, set *podSet) (n int, ok bool) {
	if name == (portName{}) {
		if m.group == nil {
			return 0, false
		}
		return r.groupSize(m.group), true
	}
	for port, groups := range m.byPort {
		for _, g := range groups {
			if port.Name == name.name && port.Protocol == name.protocol && slices.Equal(g.within.keys(), set.within.keys()) {
				n, ok = n+r.groupSize(g), true
			}
		}
	}
	return n, ok
}

// admitWaiting ends a change of a namespace's policies: it decides on those that are over the budget, oldest first. From the first of
// them on that may take long, they are left to the caller if there may be more room than before (see Changes.Again).
func (r *Resolver) admitWaiting(namespace string, room bool) {
	t := r.tenant(namespace)
	t.full = false
	long := false
	for _, p := range slices.SortedFunc(maps.Values(t.waiting), compareAge) {
		if b := r.options.Budget; b.Groups > 0 && p.asked > b.Groups {
			continue
		}
		if long = long || p.source.IsOutline() || r.isLarge(p); long {
			if room {
				r.again = append(r.again, p.source)
			}
			continue
		}
		t.refund(p.charged)
		problem := r.exceeds(p, func() demands { return p.charged })
		t.charge(p.charged)
		if problem == nil {
			r.putPolicy(r.newPolicy(p.source, p.normalized))
		}
	}
	t.full = false
	if len(t.users)+len(t.waiting) == 0 {
		delete(r.tenants, namespace)
	}
}

// compareAge orders policies by age, the oldest first.
func compareAge(a, b *policyState) int {
	return cmp.Or(a.source.CreationTimestamp.Compare(b.source.CreationTimestamp.Time), compareNames(a.endpoint.Name, b.endpoint.Name))
}

// setUnresolved resolves the policies that were stored before Start. Those of which a version with all of their peers is in force
// come first, then the oldest.
func (r *Resolver) setUnresolved() {
	byNamespace := map[string][]*policyState{}
	for _, key := range slices.SortedFunc(maps.Keys(r.unresolved), compareNames) {
		np := r.unresolved[key]
		if np.IsOutline() {
			r.setLater(np) // what is in force of it counts before what others ask for
			continue
		}
		byNamespace[np.Namespace] = append(byNamespace[np.Namespace], r.newPolicy(np, normalize(np)))
	}
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		policies := byNamespace[namespace]
		asked := demands{}
		for _, p := range policies {
			maps.Copy(asked, p.demands)
		}
		slices.SortFunc(policies, compareAge)
		if b := r.options.Budget; b.Groups > 0 && asked.groups() > b.Groups || b.Addresses > 0 && asked.groups()*r.podAddresses > b.Addresses {
			inForce := map[*policyState]bool{}
			for _, p := range policies {
				inForce[p] = p.demands.within(r.existing.demands(r, p))
			}
			slices.SortStableFunc(policies, func(a, b *policyState) int { return -compareBools(inForce[a], inForce[b]) })
		}
		for _, p := range policies {
			r.putPolicy(p)
		}
		r.tenant(namespace).full = false
	}
}
