package resolver

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// fillAtOnce is about how many addresses one call of Fill puts into groups. They take 10 to 30 ms.
const fillAtOnce = 5000

// scanned is how many pods are looked at in the time in which one address is put into a group.
const scanned = 50

// filling makes the groups of one policy in steps, before the policy is in force. First it counts their addresses, so that a
// policy beyond the budget makes none.
type filling struct {
	policy *policyState
	// count are demands that were not counted yet. left is what the budget leaves; counted is set if over is known.
	count         []demandKey
	left          int
	counted, over bool
	// planned is set after missing was found: the groups that do not exist yet. group is the last one that was made, and keys
	// are of pods that it lacks, sorted.
	planned bool
	missing []groupRef
	group   *group
	keys    []types.NamespacedName
	made    []policy.GroupKey
}

// Fill does a part of SetPreparedPolicy, if the policy's new groups may have many addresses: it makes these groups. Call it until
// it returns false, then SetPreparedPolicy. Other changes may come in between, also of the pods in these groups. The Resolver has
// started.
func (r *Resolver) Fill(p PreparedPolicy) (c Changes, more bool) {
	if r.filling == nil || r.filling.policy.source != p.policy {
		r.stopFilling()
		r.filling = r.newFilling(p)
	}
	for work := 0; work < r.fillAtOnce; {
		n, more := r.filling.step(r)
		if !more {
			return r.takeChanges(), false
		}
		work += n
	}
	return r.takeChanges(), true
}

// stopFilling gives groups free that the policy does not use.
func (r *Resolver) stopFilling() {
	if r.filling == nil {
		return
	}
	for _, key := range r.filling.made {
		if g, ok := r.groups[key]; ok && g.users == 0 {
			r.unused[key] = struct{}{}
		}
	}
	r.filling = nil
}

func (r *Resolver) newFilling(p PreparedPolicy) *filling {
	f := &filling{policy: r.newPolicy(p.policy, p.normalized), planned: true}
	if !r.isLarge(f.policy) {
		return f
	}
	t, old := r.tenant(p.policy.Namespace), r.policies[f.policy.endpoint.Policy]
	if old != nil {
		t.refund(old.charged)
		defer t.charge(old.charged)
		if old.endpoint.Name != f.policy.endpoint.Name { // another policy under the same name
			old = nil
		}
	}
	switch fit, _ := r.compare(f.policy, func() demands { return r.inForce(f.policy, old) }); fit {
	case tooManyGroups: // none is made
	case fits:
		f.planned = false
	case mayFit:
		f.planned = false
		f.left = r.options.Budget.Addresses
		for key, set := range t.demands { // their groups exist
			f.left -= r.size(p.policy.Namespace, key, set, f.left)
		}
		for key := range f.policy.demands {
			if t.users[key] == 0 {
				f.count = append(f.count, key)
			}
		}
		slices.SortFunc(f.count, compareDemands)
		f.counted, f.over = true, f.left < 0
	}
	return f
}

// isLarge reports whether to count the addresses of a policy's new groups, or to make these, may take long.
func (r *Resolver) isLarge(p *policyState) bool {
	missing := 0
	for key := range p.demands {
		if _, ok := r.groups[key.group]; !ok || key.name != (portName{}) {
			missing += key.groups()
		}
	}
	return missing*r.podAddresses > r.fillAtOnce
}

// step does a part of the work and returns how much, in addresses.
func (f *filling) step(r *Resolver) (work int, more bool) {
	switch from := f.policy.source.Namespace; {
	case f.over:
		return 0, false
	case len(f.count) > 0:
		key := f.count[0]
		f.count = f.count[1:]
		set := f.policy.demands[key]
		f.left -= r.size(from, key, set, f.left)
		f.over = f.left < 0
		return 1 + r.podsIn(from, set)/scanned, true
	case !f.planned:
		f.missing, f.planned = r.missing(f.policy), true
		return 1 + len(f.missing), true
	case len(f.keys) > 0:
		n := min(len(f.keys), r.fillAtOnce)
		r.fill(f.group, f.keys[:n])
		f.keys = f.keys[n:]
		return n, true
	case len(f.missing) > 0:
		ref := f.missing[0]
		f.missing = f.missing[1:]
		if _, ok := r.groups[ref.key]; ok {
			return 1, true
		}
		f.group = r.newGroup(from, ref)
		f.made = append(f.made, ref.key)
		f.keys = slices.SortedFunc(maps.Keys(f.group.lacks), compareNames)
		return 1 + 4*r.podsIn(from, ref.set)/scanned, true
	}
	return 0, false
}

// podsIn is about how many pods are looked at to find those of a set.
func (r *Resolver) podsIn(from string, set *podSet) int {
	if ns := r.namespaces[from]; set.namespaces == nil && ns != nil {
		return len(ns.pods)
	}
	return r.podAddresses
}

// missing are the groups of a policy that do not exist yet, once each.
func (r *Resolver) missing(p *policyState) []groupRef {
	from := p.source.Namespace
	renderer := r.renderer(from)
	renderer.numbers = func(set *podSet, name portName) portNumbers {
		return boundNumbers(countNumbers(r.podsOf(from, set), name, set.within))
	}
	out := slices.DeleteFunc(renderer.render(p.source, p.normalized).groups, func(ref groupRef) bool {
		_, ok := r.groups[ref.key]
		return ok
	})
	slices.SortFunc(out, func(a, b groupRef) int { return compareGroups(a.key, b.key) })
	return slices.CompactFunc(out, func(a, b groupRef) bool { return a.key == b.key })
}

// fill puts addresses of pods into a group that lacks them.
func (r *Resolver) fill(g *group, keys []types.NamespacedName) {
	for _, key := range keys {
		if _, ok := g.lacks[key]; !ok {
			continue
		}
		delete(g.lacks, key)
		ns, ok := r.namespaces[key.Namespace]
		if !ok {
			continue
		}
		if p, ok := ns.pods[key.Name]; ok && slices.Contains(p.in, g.matcher) && g.holds(p) {
			r.place(g, nil, g.of(p), p)
		}
	}
	if len(g.lacks) == 0 {
		g.lacks = nil
	}
}

func compareDemands(a, b demandKey) int {
	return cmp.Or(compareGroups(a.group, b.group), strings.Compare(a.name.name, b.name.name), cmp.Compare(a.name.protocol, b.name.protocol))
}
