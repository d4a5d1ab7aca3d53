package resolver

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// Announcement contains addresses of a pod that its node's agent reported, usually before the pod's status has
// them.
type Announcement struct {
	Pod types.NamespacedName
	// UID is the pod's, or that of the static pod whose mirror it is.
	UID       types.UID
	Node      string
	Addresses []netip.Addr
	// Until is when the announcement expires, unless the pod's status has one of the addresses by then.
	Until time.Time
}

// Verdict says whether the Resolver uses an announcement.
type Verdict int

// Verdicts. Only Accepted ones are used.
const (
	Accepted Verdict = iota
	// UnknownPod has no such UID, or is not bound to a node, as far as the Resolver was given it.
	UnknownPod
	OtherNode
	HostNetwork
	AddressInUse // by a running pod of another node
	Ended
)

// announced are the announced addresses in use.
type announced struct {
	byUID     map[types.UID]*Announcement
	byAddress map[address]types.UID
	// mirrors are the UIDs of the mirrors that are announced, by those of their static pods.
	mirrors map[types.UID]types.UID
	// lost are the addresses that a pod announced while the status of another pod of its node had them. Until that
	// status changes, they are the announced pod's only.
	lost map[address]types.UID
	// owners are the pods whose status has an address: the first in owner, all others in others.
	owner  map[address]*pod
	others map[address][]*pod
}

func newAnnounced() announced {
	return announced{
		byUID: map[types.UID]*Announcement{}, byAddress: map[address]types.UID{}, mirrors: map[types.UID]types.UID{}, lost: map[address]types.UID{},
		owner: map[address]*pod{}, others: map[address][]*pod{},
	}
}

// Announce uses addresses as a pod's until its status has one of them; from then on the status decides. They
// leave the groups of other pods of the node whose status still has them. left are the groups that they leave.
func (r *Resolver) Announce(a Announcement) (v Verdict, left []policy.GroupKey, changes Changes) {
	p := r.podOf(a.Pod, a.UID)
	if v := r.judge(&a, p); v != Accepted {
		return v, nil, Changes{}
	}
	a.UID = p.UID
	r.withdraw(a.UID)
	refresh := []types.NamespacedName{a.Pod}
	before := map[policy.GroupKey]struct{}{}
	for _, addr := range a.Addresses {
		key := address(addr.As16())
		if uid, ok := r.announced.byAddress[key]; ok { // the node uses the address again
			refresh = append(refresh, r.announced.byUID[uid].Pod)
			r.collectGroups(r.announced.byUID[uid].Pod, key, before)
			r.withdraw(uid)
		}
		for _, q := range r.owners(key) {
			if q.UID != a.UID {
				r.collectGroups(q.Key, key, before)
				r.announced.lost[key] = a.UID
				refresh = append(refresh, q.Key)
			}
		}
	}
	if !hasAny(&p.Pod, &a) {
		r.announced.byUID[a.UID] = &a
		for _, addr := range a.Addresses {
			r.announced.byAddress[addr.As16()] = a.UID
		}
		if p.Mirrors != "" {
			r.announced.mirrors[p.Mirrors] = a.UID
		}
	}
	for _, key := range refresh {
		r.refresh(key)
	}
	now := r.GroupsOf(a.Pod)
	for key := range before {
		if !slices.Contains(now, key) {
			left = append(left, key)
		}
	}
	slices.SortFunc(left, compareGroups)
	return Accepted, left, r.takeChanges()
}

// judge decides whether an announcement can be used; p is the pod, or nil.
func (r *Resolver) judge(a *Announcement, p *pod) Verdict {
	switch {
	case p == nil || a.UID == "" || p.Node == "":
		return UnknownPod
	case p.Node != a.Node:
		return OtherNode
	case p.HostNetwork:
		return HostNetwork
	case p.isFinal():
		return Ended
	}
	for _, addr := range a.Addresses {
		key := address(addr.As16())
		if uid, ok := r.announced.byAddress[key]; ok && r.announced.byUID[uid].Node != a.Node {
			return AddressInUse
		}
		if slices.ContainsFunc(r.owners(key), func(q *pod) bool { return q.Node != a.Node && !q.isFinal() }) {
			return AddressInUse
		}
	}
	return Accepted
}

// Withdraw stops using what a node announced for a pod.
func (r *Resolver) Withdraw(node string, uid types.UID) Changes {
	if mirror, ok := r.announced.mirrors[uid]; ok {
		uid = mirror
	}
	if a, ok := r.announced.byUID[uid]; ok && a.Node == node {
		r.withdraw(uid)
		r.refresh(a.Pod)
	}
	return r.takeChanges()
}

// Expire stops using the announcements that end by now. next is when the next one ends; zero if there is none.
func (r *Resolver) Expire(now time.Time) (next time.Time, changes Changes) {
	for uid, a := range r.announced.byUID {
		if !now.Before(a.Until) {
			r.withdraw(uid)
			r.refresh(a.Pod)
		} else if next.IsZero() || a.Until.Before(next) {
			next = a.Until
		}
	}
	return next, r.takeChanges()
}

// GroupsOf returns the groups that contain a pod's addresses, sorted.
func (r *Resolver) GroupsOf(key types.NamespacedName) []policy.GroupKey {
	out := []policy.GroupKey{}
	ns, ok := r.namespaces[key.Namespace]
	if !ok || ns.pods[key.Name] == nil {
		return out
	}
	p := ns.pods[key.Name]
	p.eachGroup(func(g *group) {
		if len(g.of(p)) > 0 && !slices.Contains(out, g.key) {
			out = append(out, g.key)
		}
	})
	slices.SortFunc(out, compareGroups)
	return out
}

// SlicesOf returns the names of the slices that contain a pod's addresses.
func (r *Resolver) SlicesOf(key types.NamespacedName) (out []types.NamespacedName) {
	ns, ok := r.namespaces[key.Namespace]
	if !ok || ns.pods[key.Name] == nil {
		return nil
	}
	for _, a := range r.addressesOf(&ns.pods[key.Name].Pod) {
		for _, at := range r.space.seatsOf(a) {
			if name := r.space.slices[at.slice].name(); !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// collectGroups adds the groups that contain an address of a pod.
func (r *Resolver) collectGroups(key types.NamespacedName, a address, out map[policy.GroupKey]struct{}) {
	ns, ok := r.namespaces[key.Namespace]
	if !ok || ns.pods[key.Name] == nil {
		return
	}
	p := ns.pods[key.Name]
	p.eachGroup(func(g *group) {
		if slices.Contains(g.of(p), a) {
			out[g.key] = struct{}{}
		}
	})
}

// withdraw forgets an announcement. The caller refreshes its pod.
func (r *Resolver) withdraw(uid types.UID) {
	a, ok := r.announced.byUID[uid]
	if !ok {
		return
	}
	r.forgetAnnouncement(a)
	p := r.podOf(a.Pod, uid)
	for _, addr := range a.Addresses {
		key := address(addr.As16())
		delete(r.announced.byAddress, key)
		if p == nil || !slices.Contains(p.Addresses, addr) {
			r.giveBack(key, uid)
		}
	}
}

// forgetAnnouncement removes an announcement, and keeps its addresses.
func (r *Resolver) forgetAnnouncement(a *Announcement) {
	delete(r.announced.byUID, a.UID)
	for static, mirror := range r.announced.mirrors {
		if mirror == a.UID {
			delete(r.announced.mirrors, static)
		}
	}
}

// giveBack returns a lost address to the pods whose status has it.
func (r *Resolver) giveBack(a address, from types.UID) {
	if r.announced.lost[a] != from {
		return
	}
	delete(r.announced.lost, a)
	for _, q := range r.owners(a) {
		r.refresh(q.Key)
	}
}

// refresh computes a pod's addresses and groups again.
func (r *Resolver) refresh(key types.NamespacedName) {
	if ns, ok := r.namespaces[key.Namespace]; ok && ns.pods[key.Name] != nil {
		r.setPod(key, &ns.pods[key.Name].Pod)
	}
}

// settleAnnouncement ends a pod's announcement where the pod's new version decides: it has another UID, has
// ended or was deleted, or its status has an announced address.
func (r *Resolver) settleAnnouncement(old *pod, next *Pod) {
	if old == nil {
		return
	}
	a, ok := r.announced.byUID[old.UID]
	if !ok {
		return
	}
	if next != nil && next.UID == old.UID && !next.isFinal() && !hasAny(next, a) {
		return
	}
	r.forgetAnnouncement(a)
	for _, addr := range a.Addresses {
		delete(r.announced.byAddress, addr.As16())
		if next == nil || next.UID != a.UID || !slices.Contains(next.Addresses, addr) {
			r.giveBack(addr.As16(), a.UID)
		}
	}
}

// own records whose status has which addresses, and ends the losses that follow from it no more.
func (r *Resolver) own(old, next *pod) {
	var before, now []address
	if old != nil && !old.HostNetwork {
		before = old.status()
	}
	if next != nil && !next.HostNetwork {
		now = next.status()
	}
	for _, a := range before {
		r.disown(a, old)
	}
	for _, a := range now {
		if _, ok := r.announced.owner[a]; !ok {
			r.announced.owner[a] = next
		} else {
			r.announced.others[a] = append(r.announced.others[a], next)
		}
	}
	for _, a := range without(before, now) {
		uid, ok := r.announced.lost[a]
		if !ok {
			continue
		}
		if uid == old.UID {
			r.giveBack(a, uid)
		} else if !slices.ContainsFunc(r.owners(a), func(q *pod) bool { return q.UID != uid }) {
			delete(r.announced.lost, a)
		}
	}
}

func (r *Resolver) disown(a address, p *pod) {
	rest := slices.DeleteFunc(r.owners(a), func(q *pod) bool { return q == p })
	delete(r.announced.others, a)
	if len(rest) == 0 {
		delete(r.announced.owner, a)
		return
	}
	r.announced.owner[a] = rest[0]
	if len(rest) > 1 {
		r.announced.others[a] = rest[1:]
	}
}

// owners returns the pods whose status has an address.
func (r *Resolver) owners(a address) []*pod {
	p, ok := r.announced.owner[a]
	if !ok {
		return nil
	}
	return append([]*pod{p}, r.announced.others[a]...)
}

// addressesOf returns the addresses of a pod: those of its status, or those that are announced, without those
// that it has lost.
func (r *Resolver) addressesOf(p *Pod) []address {
	from := p.Addresses
	if a, ok := r.announced.byUID[p.UID]; ok && a.Pod == p.Key && p.UID != "" {
		from = a.Addresses
	}
	var out []address
	for _, addr := range from {
		a := address(addr.As16())
		if uid, ok := r.announced.lost[a]; ok && uid != p.UID {
			continue
		}
		out = append(out, a)
	}
	return out
}

// status returns the addresses of a pod's status.
func (p *pod) status() []address {
	var out []address
	for _, addr := range p.Addresses {
		out = append(out, addr.As16())
	}
	return out
}

// podOf returns the pod with a name and a UID, or the mirror of a static pod with that UID, or nil.
func (r *Resolver) podOf(key types.NamespacedName, uid types.UID) *pod {
	ns, ok := r.namespaces[key.Namespace]
	if !ok {
		return nil
	}
	p, ok := ns.pods[key.Name]
	if !ok || p.UID != uid && (uid == "" || p.Mirrors != uid) {
		return nil
	}
	return p
}

// hasAny reports whether a pod's status has an announced address.
func hasAny(p *Pod, a *Announcement) bool {
	return slices.ContainsFunc(a.Addresses, func(addr netip.Addr) bool { return slices.Contains(p.Addresses, addr) })
}
