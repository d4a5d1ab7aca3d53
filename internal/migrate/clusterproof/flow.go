package clusterproof

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// Flow of one class, with the cluster that it happens in.
type Flow struct {
	policy.Flow
	// Self is the pod whose policies decide, Peer the other end.
	Self, Peer End
	// Namespaces, Pods and Nodes are those of both ends.
	Namespaces []corev1.Namespace
	Pods       []corev1.Pod
	Nodes      []corev1.Node
	// Names are the domain names that the peer's address belongs to.
	Names map[string]bool

	portNames []string
}

// Target returns the pod that receives the connection, nil if that is none.
func (f *Flow) Target(d policy.Direction) *corev1.Pod {
	if d == policy.Ingress {
		return f.Self.Pod
	}
	return f.Peer.Pod
}

// End of a flow. Pod and Node are nil where the address is neither's.
type End struct {
	Addr netip.Addr
	Pod  *corev1.Pod
	// NamespaceLabels are those of the pod's namespace.
	NamespaceLabels map[string]string
	Node            *corev1.Node
	names           []string
}

// String is as "a pod app=web in namespace a=b at 192.0.2.1".
func (e End) String() string {
	switch {
	case e.Pod != nil:
		in := "a namespace without labels that matter"
		if name := e.NamespaceLabels[corev1.LabelMetadataName]; name != "" && name != another {
			in = "namespace " + name
		}
		rest := maps.Clone(e.NamespaceLabels)
		delete(rest, corev1.LabelMetadataName)
		if len(rest) > 0 {
			in = strings.TrimSuffix(in, " without labels that matter") + " with " + list(rest)
		}
		return "pod" + labelled(e.Pod.Labels) + " in " + in + " at " + e.Addr.String()
	case e.Node != nil:
		return "node" + labelled(e.Node.Labels) + " at " + e.Addr.String()
	case len(e.names) > 0:
		return e.Addr.String() + " (an address of " + strings.Join(e.names, ", ") + ")"
	}
	return e.Addr.String()
}

func labelled(labels map[string]string) string {
	if len(labels) == 0 {
		return ""
	}
	return " " + list(labels)
}

func list(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// traffic is what a flow is but for its ends.
type traffic struct {
	protocol policy.Protocol
	port     uint16
	names    []string // of the port, at the pod that receives
}

// peer is a class of other ends.
type peer struct {
	addr      netip.Addr
	pod, node *object
}

func namespaceOf(o *object, otherwise string) *corev1.Namespace {
	labels := maps.Clone(map[string]string(o.namespace))
	name := labels[corev1.LabelMetadataName]
	if name == another || name == "" {
		name = otherwise
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func podOf(o *object, namespace, name string, addr netip.Addr) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: o.own},
		Status:     corev1.PodStatus{PodIP: addr.String(), PodIPs: []corev1.PodIP{{IP: addr.String()}}},
	}
}

// selfAddrs are the addresses of pods whose policies decide, by family, and others in case that the peer has the first.
var selfAddrs = map[bool][2]netip.Addr{
	true:  {netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("192.0.2.253")},
	false: {netip.MustParseAddr("2001:db8::fffe"), netip.MustParseAddr("2001:db8::fffd")},
}

// flow of these classes; nil where there can be none.
func flow(d policy.Direction, self *object, p *peer, t *traffic, names map[string]bool) *Flow {
	addrs := selfAddrs[p.addr.Is4()]
	f := &Flow{Names: names, portNames: t.names}
	own := addrs[0]
	if own == p.addr {
		own = addrs[1]
	}
	ns := namespaceOf(self, "one")
	pod := podOf(self, ns.Name, "self", own)
	f.Self = End{Addr: own, Pod: pod, NamespaceLabels: ns.Labels}
	f.Peer = End{Addr: p.addr}
	f.Namespaces = []corev1.Namespace{*ns}
	if p.pod != nil {
		other := namespaceOf(p.pod, "other")
		if other.Name == ns.Name {
			merged, ok := merge(ns.Labels, other.Labels)
			if !ok {
				return nil // one namespace cannot have different labels at once
			}
			ns.Labels, other.Labels = merged, merged
			f.Namespaces[0], f.Self.NamespaceLabels = *ns, merged
		} else {
			f.Namespaces = append(f.Namespaces, *other)
		}
		f.Peer.Pod, f.Peer.NamespaceLabels = podOf(p.pod, other.Name, "peer", p.addr), other.Labels
	}
	if p.node != nil {
		f.Peer.Node = &corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node", Labels: p.node.own},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: p.addr.String()}}},
		}
		f.Nodes = []corev1.Node{*f.Peer.Node}
	}
	for n, is := range names {
		if is {
			f.Peer.names = append(f.Peer.names, n)
		}
	}
	slices.Sort(f.Peer.names)
	f.Flow = policy.Flow{Source: own, Destination: p.addr, Protocol: t.protocol, Port: t.port}
	if d == policy.Ingress {
		f.Source, f.Destination = f.Destination, f.Source
	}
	if target := f.Target(d); target != nil && len(t.names) > 0 {
		c := corev1.Container{Name: "c"}
		for _, n := range t.names {
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: n, ContainerPort: int32(t.port), Protocol: corev1.Protocol(t.protocol.String())})
		}
		target.Spec.Containers = []corev1.Container{c}
	}
	f.Pods = []corev1.Pod{*pod}
	if f.Peer.Pod != nil {
		f.Pods = append(f.Pods, *f.Peer.Pod)
	}
	return f
}

// merge the labels of one namespace, as far as each end asked for them; ok is false where they contradict each other.
func merge(a, b map[string]string) (out map[string]string, ok bool) {
	out = maps.Clone(a)
	for k, v := range b {
		if old, known := out[k]; known && old != v {
			return nil, false
		}
		out[k] = v
	}
	return out, true
}

// Traffic is as "TCP 80" or "TCP 8080 (http)".
func (f *Flow) Traffic() string {
	out := f.Protocol.String()
	if f.Port != 0 {
		out += fmt.Sprintf(" %d", f.Port)
	}
	if len(f.portNames) > 0 {
		out += " (" + strings.Join(f.portNames, ", ") + ")"
	}
	return out
}

// addresses returns one of each class that the networks tell apart, of both families.
func addresses(networks []netip.Prefix) []netip.Addr {
	candidates := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.IPv4Unspecified().Next(), netip.IPv6Unspecified().Next()}
	for _, n := range networks {
		if first := n.Masked().Addr(); n.Contains(first.Next()) {
			candidates = append(candidates, first.Next())
		}
		candidates = append(candidates, n.Masked().Addr())
	}
	for _, n := range networks {
		if after := last(n).Next(); after.IsValid() {
			candidates = append(candidates, after)
		}
	}
	seen := map[string]bool{}
	var out []netip.Addr
	for _, a := range candidates {
		key := []byte{bit(a.Is4())}
		for _, n := range networks {
			key = append(key, bit(n.Contains(a)))
		}
		if !seen[string(key)] {
			seen[string(key)] = true
			out = append(out, a)
		}
	}
	return out
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// last address of a network.
func last(n netip.Prefix) netip.Addr {
	b := n.Masked().Addr().AsSlice()
	for i := n.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	out, _ := netip.AddrFromSlice(b)
	return out
}

// traffics returns one of each class that the ports tell apart, for a pod that receives.
func traffics(ports []Port, family4 bool, target bool) []*traffic {
	numbers := []uint16{80, 1}
	var names []string
	for _, p := range ports {
		if p.Name != "" {
			names = append(names, p.Name)
			continue
		}
		numbers = append(numbers, p.First)
		if p.Last < 65535 {
			numbers = append(numbers, p.Last+1)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	variants := [][]string{nil}
	if target {
		for _, n := range names {
			variants = append(variants, []string{n})
		}
		if len(names) > 1 {
			variants = append(variants, names)
		}
	}
	icmp := policy.ICMPv6
	if family4 {
		icmp = policy.ICMP
	}
	seen := map[string]bool{}
	var out []*traffic
	add := func(t *traffic) {
		key := []byte{byte(t.protocol)}
		for _, p := range ports {
			key = append(key, bit(p.matches(t)))
		}
		if !seen[string(key)] {
			seen[string(key)] = true
			out = append(out, t)
		}
	}
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		for _, n := range numbers {
			for _, v := range variants {
				if n > 0 {
					add(&traffic{protocol, n, v})
				}
			}
		}
	}
	add(&traffic{protocol: icmp})
	return out
}
