package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Other clients than the controller may write slices and PolicyEndpoints, in any order. These have slices that the controller never writes:
// lists of slices that are wrong or contradict each other, groups that come and go, addresses in several slices and in both namespaces that may
// have them, and slices that cannot be read. A namespace's own slices also have groups with the names of shared groups and of other namespaces'
// groups. Agents that have received them must have in force what the rules in received come to. None of the PolicyEndpoints is left at the end,
// because the judges do not know them.

var (
	foreignSlices = []string{"foreign-s0", "foreign-s1", "foreign-s2"}
	foreignGroups = []string{"f0", "f1", "f2"} // local ones and shared ones
)

// foreign draws the lives of some slices of one namespace and of the shared one, and of PolicyEndpoints that use their groups.
func (d *dice) foreign(o *objects) (lives [][]Event) {
	namespace := pick(d, d.namespaces...)
	var pool []netip.Addr
	for _, key := range sortedNames(o.pods) {
		pool = append(pool, policy.PodAddresses(o.pods[key])...)
	}
	pool = append(pool, pick(d, d.addresses...))
	for _, home := range slices.Compact([]string{namespace, sharedNamespace}) {
		for _, name := range foreignSlices {
			var life []Event
			for range 2 + d.IntN(4) {
				slice := d.foreignSlice(home, name, namespace, pool)
				life = append(life, Event{Do: Set, Slice: slice})
				if d.oneIn(6) {
					life = append(life, Event{Do: Delete, Slice: slice})
				}
			}
			lives = append(lives, life)
		}
	}
	for i := range 1 + d.IntN(2) {
		var life []Event
		for range 1 + d.IntN(3) {
			pe := d.foreignEndpoint(namespace, fmt.Sprint("foreign-", i))
			life = append(life, Event{Do: Set, Endpoint: pe})
			if d.oneIn(4) {
				life = append(life, Event{Do: Delete, Endpoint: pe})
			}
		}
		lives = append(lives, life)
	}
	return lives
}

// foreignSlice draws a slice in home, which is either namespace or the shared one, with local groups of namespace and with shared ones.
func (d *dice) foreignSlice(home, name, namespace string, pool []netip.Addr) *v1alpha1.PolicyEndpointSlice {
	s := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: home, Name: name}}
	for _, i := range d.Perm(len(foreignGroups))[:1+d.IntN(len(foreignGroups))] {
		part := v1alpha1.GroupPart{Name: foreignGroups[i]}
		switch {
		case home == sharedNamespace && d.oneIn(2):
			part.Namespace = namespace
		case home != sharedNamespace && d.oneIn(20):
			part.Namespace = pick(d, namespace, sharedNamespace) // which is not for slices of home
		}
		if d.oneIn(3) && (part.Namespace == "" || part.Namespace == home || d.oneIn(10)) {
			part.Slices, part.SharedSlices = d.foreignList(), nil
			if d.oneIn(2) {
				part.SharedSlices = d.foreignList()
			}
		}
		s.Spec.Groups = append(s.Spec.Groups, part)
		if home == sharedNamespace && d.oneIn(4) {
			other := v1alpha1.GroupPart{Name: part.Name}
			if part.Namespace == "" {
				other.Namespace = namespace
			}
			s.Spec.Groups = append(s.Spec.Groups, other) // of the same name, or the same group, if this is the shared namespace's own
		}
	}
	for _, a := range pool {
		var in []int32
		for i := range s.Spec.Groups {
			if d.oneIn(3) {
				in = append(in, int32(i))
			}
		}
		if in == nil {
			continue
		}
		s.Spec.Addresses = append(s.Spec.Addresses, v1alpha1.CIDR(netip.PrefixFrom(a, a.BitLen()).String()))
		if last := len(s.Spec.Classes) - 1; last >= 0 && slices.Equal(s.Spec.Classes[last].Groups, in) {
			s.Spec.Classes[last].Count++
		} else {
			s.Spec.Classes = append(s.Spec.Classes, v1alpha1.AddressClass{Groups: in, Count: 1})
		}
	}
	if len(s.Spec.Classes) > 0 && d.oneIn(8) {
		class := &s.Spec.Classes[d.IntN(len(s.Spec.Classes))]
		switch d.IntN(6) {
		case 0:
			class.Count++
		case 1:
			class.Count--
		case 2:
			class.Groups = append(class.Groups, int32(len(s.Spec.Groups)))
		case 3:
			class.Groups = append(class.Groups, class.Groups[0])
		case 4:
			s.Spec.Addresses[0] = "ten"
		case 5:
			s.Spec.Groups = append(s.Spec.Groups, s.Spec.Groups[0])
		}
	}
	return s
}

// foreignList draws a list of slices: often all, or some of them, and sometimes one twice.
func (d *dice) foreignList() []string {
	out := slices.Clone(foreignSlices[:1+d.IntN(len(foreignSlices))])
	if d.oneIn(3) {
		out[0] = pick(d, foreignSlices...)
	}
	return out
}

func (d *dice) foreignEndpoint(namespace, name string) *v1alpha1.PolicyEndpoint {
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name)}}
	pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "Foreign", Name: name, UID: types.UID(name), Generation: d.Int64N(1000)}
	pe.Generation = pe.Spec.PolicyRef.Generation
	if d.oneIn(4) || namespace == sharedNamespace {
		pe.Namespace = pick(d, d.namespaces...) // whose own groups of these names there are not, unless it is namespace
	}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress, v1alpha1.PolicyTypeEgress}
	rule := func() []v1alpha1.Rule {
		out := v1alpha1.Rule{Action: v1alpha1.ActionAllow}
		for _, i := range d.Perm(len(foreignGroups))[:1+d.IntN(2)] {
			group := &v1alpha1.GroupReference{Name: foreignGroups[i], Shared: pe.Namespace != namespace || d.oneIn(3)}
			out.Peers = append(out.Peers, v1alpha1.Peer{Group: group})
		}
		return []v1alpha1.Rule{out}
	}
	pe.Spec.Ingress, pe.Spec.Egress = rule(), rule()
	return pe
}

// foreignObjects are what other clients wrote.
type foreignObjects struct {
	slices    map[types.NamespacedName]*v1alpha1.PolicyEndpointSlice
	endpoints map[types.NamespacedName]*v1alpha1.PolicyEndpoint
}

// writeForeign lets another client write or delete an object.
func (k *kidoban) writeForeign(e *Event) {
	deleted := e.Do == Delete
	if e.Slice != nil {
		key := types.NamespacedName{Namespace: e.Slice.Namespace, Name: e.Slice.Name}
		if before := k.foreign.slices[key]; before == nil && deleted {
			return
		}
		put(k.foreign.slices, key, e.Slice, e.Do)
		for _, a := range k.agents {
			a.sliceChanged(e.Slice, deleted)
		}
		return
	}
	key := types.NamespacedName{Namespace: e.Endpoint.Namespace, Name: e.Endpoint.Name}
	if before := k.foreign.endpoints[key]; before == nil && deleted {
		return
	}
	put(k.foreign.endpoints, key, e.Endpoint, e.Do)
	for _, a := range k.agents {
		a.endpointChanged(e.Endpoint, deleted)
	}
}

// deleteForeign deletes the PolicyEndpoints that other clients left.
func (k *kidoban) deleteForeign() {
	for _, key := range sortedNames(k.foreign.endpoints) {
		k.writeForeign(&Event{Do: Delete, Endpoint: k.foreign.endpoints[key]})
	}
}

// isForeign reports whether another client than the controller wrote a slice.
func isForeign(s *v1alpha1.PolicyEndpointSlice) bool { return slices.Contains(foreignSlices, s.Name) }
