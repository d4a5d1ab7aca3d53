package proof

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// maxClasses of pods that are looked at in one namespace and direction.
const maxClasses = 500_000

// unheardOf is a value that no policy names.
func unheardOf(named []string) string {
	v := "any-other"
	for slices.Contains(named, v) {
		v += "-x"
	}
	return v
}

// choices of a field: that it is absent, each value that is named, and one that is not. Names are never absent.
func (l labels) choices(f field) []string {
	named := slices.Clone(l[f])
	slices.Sort(named)
	out := append(slices.Compact(named), unheardOf(named))
	if f.key == "" {
		return out
	}
	return append([]string{absent}, out...)
}

// absent stands for no label: no label's value has this character.
const absent = "\x00"

// count of the pods that the labels tell apart; more than maxClasses are not counted.
func (l labels) count() int {
	n := 1
	for f := range l {
		if n *= len(l.choices(f)); n > maxClasses {
			return n
		}
	}
	return n
}

// each yields a pod of each class. What is not said of it comes from the pod and the namespace's labels given.
func (l labels) each(namespace string, namespaceLabels map[string]string, yield func(*calico.Endpoint)) {
	fields := slices.SortedFunc(maps.Keys(l), func(a, b field) int {
		return cmp.Or(cmp.Compare(a.owner, b.owner), cmp.Compare(a.key, b.key))
	})
	values := make([]string, len(fields))
	var next func(int)
	next = func(i int) {
		if i == len(fields) {
			yield(endpoint(fields, values, namespace, namespaceLabels))
			return
		}
		for _, v := range l.choices(fields[i]) {
			values[i] = v
			next(i + 1)
		}
	}
	next(0)
}

func endpoint(fields []field, values []string, namespace string, namespaceLabels map[string]string) *calico.Endpoint {
	e := &calico.Endpoint{Pod: &corev1.Pod{}, NamespaceLabels: maps.Clone(namespaceLabels), AccountLabels: map[string]string{}}
	if e.NamespaceLabels == nil {
		e.NamespaceLabels = map[string]string{}
	}
	e.Pod.Namespace, e.Pod.Labels = namespace, map[string]string{}
	for i, f := range fields {
		switch {
		case f == field{owner: ofNamespace}:
			e.Pod.Namespace = values[i]
		case f == field{owner: ofAccount}:
			e.Pod.Spec.ServiceAccountName = values[i]
		case values[i] == absent:
			if f.owner == ofNamespace {
				delete(e.NamespaceLabels, f.key)
			}
		default:
			[]map[string]string{e.Pod.Labels, e.NamespaceLabels, e.AccountLabels}[f.owner][f.key] = values[i]
		}
	}
	e.NamespaceLabels[corev1.LabelMetadataName] = e.Pod.Namespace
	return e
}

// addresses: one of each class that the networks tell apart, and whether a pod may have it.
type address struct {
	netip.Addr
	pod bool
}

func (t *terms) addresses(podSpace *netipx.IPSet) []address {
	bounds := map[netip.Addr]bool{netip.IPv4Unspecified(): true, netip.IPv6Unspecified(): true}
	add := func(r netipx.IPRange) {
		bounds[r.From()] = true
		if after := r.To().Next(); after.IsValid() {
			bounds[after] = true
		}
	}
	for _, p := range t.prefixes {
		add(netipx.RangeOfPrefix(p))
	}
	for _, r := range podSpace.Ranges() {
		add(r)
	}
	seen := map[string]bool{}
	var out []address
	for _, a := range slices.SortedFunc(maps.Keys(bounds), netip.Addr.Compare) {
		var key strings.Builder
		fmt.Fprint(&key, a.Is4(), podSpace.Contains(a))
		for _, p := range t.prefixes {
			fmt.Fprint(&key, p.Contains(a))
		}
		if !seen[key.String()] {
			seen[key.String()] = true
			out = append(out, address{a, podSpace.Contains(a)})
		}
	}
	return out
}

// eachTraffic yields one of each class that protocols and ports tell apart. A port may have names at the pod that receives: each set of them.
// Port 0 is reserved (RFC 6335) and not among them.
func (t *terms) eachTraffic(yield func(calico.Traffic)) {
	numbers, names := t.numbersAndNames()
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		for _, n := range numbers {
			for subset := range 1 << len(names) {
				yield(calico.Traffic{Protocol: protocol, Port: n, Target: receiver(protocol, n, names, subset)})
			}
		}
	}
	others := append([]policy.Protocol{policy.ICMP, policy.ICMPv6}, t.protocols...)
	unheard := policy.Protocol(253) // for experiments (RFC 3692)
	for slices.Contains(others, unheard) {
		unheard--
	}
	slices.Sort(others)
	for _, protocol := range append(slices.Compact(others), unheard) {
		if !protocol.HasPorts() {
			yield(calico.Traffic{Protocol: protocol})
		}
	}
}

func (t *terms) numbersAndNames() (numbers []uint16, names []string) {
	numbers = append(slices.Clone(t.ports), 1)
	slices.Sort(numbers)
	names = slices.Clone(t.portNames)
	slices.Sort(names)
	return slices.Compact(numbers), slices.Compact(names)
}

// checkTraffic: each name that ports may have doubles what has to be looked at.
func (t *terms) checkTraffic(namespace string) error {
	numbers, names := t.numbersAndNames()
	if n := len(names); n > 20 || len(numbers)<<n > maxClasses {
		return fmt.Errorf("namespace %s: its policies name ports by %d names, and any of these may be those of one port, which is too many cases to look at each: give some of the ports by number, or fewer policies at once", namespace, n)
	}
	return nil
}

// receiver is a pod at which a port has these names; nil for none.
func receiver(protocol policy.Protocol, port uint16, names []string, subset int) *corev1.Pod {
	if subset == 0 {
		return nil
	}
	var pod corev1.Pod
	pod.Spec.Containers = make([]corev1.Container, 1)
	for i, name := range names {
		if subset&(1<<i) != 0 {
			pod.Spec.Containers[0].Ports = append(pod.Spec.Containers[0].Ports, corev1.ContainerPort{
				Name: name, ContainerPort: int32(port), Protocol: corev1.Protocol(protocol.String()),
			})
		}
	}
	return &pod
}
