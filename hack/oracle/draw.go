package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// sharedNamespace is kidoban's own. It is drawn like any other, too: its pods and policies must not be mixed up with its groups.
const sharedNamespace = "kidoban-system"

// dice draws clusters in which much overlaps: few names, labels, addresses and ports, edge cases over-represented.
type dice struct {
	*rand.Rand
	ipv4, ipv6 bool
	namespaces []string
	addresses  []netip.Addr // worth to be in a block, or at one's edge
	taken      map[netip.Addr]bool
	blocks     []block // that stand in several rules
	made       int64   // pods so far: no two are equally old
}

func newDice(seed, iteration uint64) *dice {
	d := &dice{Rand: rand.New(rand.NewPCG(seed, iteration)), taken: map[netip.Addr]bool{}}
	families := d.IntN(4)
	d.ipv4, d.ipv6 = families != 0, families != 1
	d.namespaces = []string{"shop", "bank", sharedNamespace, "lab"}[:1+d.IntN(4)]
	for _, a := range []string{"172.16.0.1", "172.16.0.2", "192.0.2.1", "203.0.113.200", "fd00:1::1", "fd00:1::2", "2001:db8::1", "2001:db8:ffff::"} {
		if addr := netip.MustParseAddr(a); d.has(addr) {
			d.addresses = append(d.addresses, addr)
		}
	}
	return d
}

func pick[T any](d *dice, from ...T) T { return from[d.IntN(len(from))] }

// oneIn is true once in n times.
func (d *dice) oneIn(n int) bool { return d.IntN(n) == 0 }

func (d *dice) has(addr netip.Addr) bool {
	return addr.Is4() && d.ipv4 || addr.Is6() && d.ipv6
}

// objects draws all that there is in a cluster.
func (d *dice) objects() *objects {
	o := newObjects()
	for _, name := range d.namespaces {
		o.namespaces[name] = d.namespace(name)
	}
	for i := range 2 + d.IntN(10) {
		p := d.pod(pick(d, d.namespaces...), fmt.Sprintf("p%d", i))
		o.pods[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
	}
	for range 4 {
		d.blocks = append(d.blocks, d.newBlock())
	}
	for i := range d.IntN(7) {
		np := d.policy(pick(d, d.namespaces...), d.policyName(i/2), int64(i))
		o.policies[types.NamespacedName{Namespace: np.Namespace, Name: np.Name}] = np
	}
	if d.oneIn(2) {
		for _, name := range nodeNames {
			o.nodes[name] = d.node(name)
		}
		for i := range 1 + d.IntN(6) {
			name := fmt.Sprint("c", i)
			o.clusterPolicies[name] = d.clusterPolicy(name)
		}
	}
	return o
}

const metadataName = "kubernetes.io/metadata.name" // the API server gives it to every namespace

func (d *dice) namespace(name string) *corev1.Namespace {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}}
	ns.Labels[metadataName] = name
	return ns
}

var (
	labelKeys   = []string{"app", "tier", "example.com/env"}
	labelValues = []string{"a", "a", "b", "b", "c", ""}
)

func (d *dice) labels() map[string]string {
	out := map[string]string{}
	for _, k := range labelKeys {
		if d.oneIn(2) {
			out[k] = pick(d, labelValues...)
		}
	}
	return out
}

func (d *dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch d.IntN(8) {
	case 0:
		return s
	case 1:
		s.MatchLabels, s.MatchExpressions = map[string]string{}, []metav1.LabelSelectorRequirement{}
		return s
	}
	for range pick(d, 1, 1, 2, 3) {
		key := pick(d, append([]string{"absent"}, labelKeys...)...)
		require := func(op metav1.LabelSelectorOperator, values ...string) {
			s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: op, Values: values})
		}
		switch d.IntN(6) {
		case 0, 1:
			s.MatchLabels = merge(s.MatchLabels, key, pick(d, labelValues...))
		case 2:
			require(metav1.LabelSelectorOpIn, d.values()...)
		case 3:
			require(metav1.LabelSelectorOpNotIn, d.values()...)
		case 4:
			require(metav1.LabelSelectorOpExists)
		case 5:
			require(metav1.LabelSelectorOpDoesNotExist)
		}
	}
	return s
}

func (d *dice) namespaceSelector() *metav1.LabelSelector {
	if d.oneIn(4) {
		return &metav1.LabelSelector{MatchLabels: map[string]string{metadataName: pick(d, d.namespaces...)}}
	}
	return d.selector()
}

func merge(m map[string]string, key, value string) map[string]string {
	out := map[string]string{key: value}
	maps.Copy(out, m)
	return out
}

func (d *dice) values() []string {
	var out []string
	for range 1 + d.IntN(3) {
		out = append(out, pick(d, labelValues...))
	}
	return out
}

// address draws one from a few small networks.
func (d *dice) address(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("%s:%x", pick(d, "fd00:", "fd00:", "fd00:0:0:1:", "2001:db8:"), d.IntN(48)))
	}
	return netip.AddrFrom4([4]byte{10, byte(d.IntN(2)), byte(d.IntN(2)), byte(d.IntN(48))})
}

// own draws an address that no pod of the cluster has.
func (d *dice) own(ipv6 bool) netip.Addr {
	for {
		if a := d.address(ipv6); !d.taken[a] {
			d.taken[a] = true
			d.addresses = append(d.addresses, a)
			return a
		}
	}
}

func (d *dice) pod(namespace, name string) *corev1.Pod {
	d.made++
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: d.labels(), CreationTimestamp: metav1.Unix(d.made, 0)},
		Spec:       corev1.PodSpec{NodeName: pick(d, "node1", "node2"), HostNetwork: d.oneIn(10)},
		Status:     corev1.PodStatus{Phase: pick(d, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodUnknown)},
	}
	if d.oneIn(8) {
		p.Status.Phase = pick(d, corev1.PodSucceeded, corev1.PodFailed)
	}
	if d.oneIn(10) {
		p.DeletionTimestamp = new(metav1.Unix(1, 0))
	}
	d.giveAddresses(p)
	for i := range 1 + d.IntN(3) {
		p.Spec.Containers = append(p.Spec.Containers, d.container(fmt.Sprintf("c%d", i)))
	}
	for i := range d.IntN(3) {
		c := d.container(fmt.Sprintf("i%d", i))
		if d.oneIn(2) {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	return p
}

func (d *dice) giveAddresses(p *corev1.Pod) {
	if p.Status.Phase == corev1.PodPending && d.oneIn(2) || d.oneIn(20) {
		return // none yet
	}
	var addrs []netip.Addr
	for _, ipv6 := range [...]bool{false, true} {
		if ipv6 && !d.ipv6 || !ipv6 && !d.ipv4 || d.ipv4 && d.ipv6 && d.oneIn(6) {
			continue
		}
		switch {
		case p.Spec.HostNetwork: // the node's, of which the other node has another
			host := map[bool]string{false: "172.16.0.", true: "fd00:1::"}[ipv6] + p.Spec.NodeName[len("node"):]
			addrs = append(addrs, netip.MustParseAddr(host))
		case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed: // it may be another's by now
			addrs = append(addrs, d.address(ipv6))
		default:
			addrs = append(addrs, d.own(ipv6))
		}
	}
	if d.oneIn(2) {
		slices.Reverse(addrs)
	}
	for i, a := range addrs {
		if i == 0 {
			p.Status.PodIP = a.String()
		}
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
	}
}

var (
	portNames   = []string{"http", "dns", "metrics"}
	portNumbers = []int32{1, 53, 79, 80, 81, 443, 1024, 8080, 32768, 65535}
	protocols   = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
)

// container draws one with ports; a name stands once in a container, as the API server asks.
func (d *dice) container(name string) corev1.Container {
	c := corev1.Container{Name: name}
	for _, name := range portNames {
		switch d.IntN(3) {
		case 0:
			c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: pick(d, portNumbers...), Protocol: pick(d, append(protocols, "")...)})
		case 1:
			if d.oneIn(4) {
				c.Ports = append(c.Ports, corev1.ContainerPort{ContainerPort: pick(d, portNumbers...), Protocol: pick(d, protocols...)})
			}
		}
	}
	return c
}
