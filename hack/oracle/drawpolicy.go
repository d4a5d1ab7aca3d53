package oracle

import (
	"fmt"
	"math/big"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// policyName gives some policies a name of the greatest length.
func (d *dice) policyName(i int) string {
	if i == 0 && d.oneIn(4) {
		return strings.Repeat("long-name.", 25) + "end"
	}
	return fmt.Sprintf("np%d", i)
}

// enforcement draws the labels of a policy.
func (d *dice) enforcement() map[string]string {
	if !d.oneIn(6) {
		return nil
	}
	return map[string]string{v1alpha1.LabelEnforcement: pick(d, v1alpha1.LabelledAudit, v1alpha1.LabelledAudit, v1alpha1.LabelledEnforce)}
}

func (d *dice) policy(namespace, name string, generation int64) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + name), Generation: generation},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *d.selector(),
			PolicyTypes: pick(d, nil, nil, []networkingv1.PolicyType{}, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"},
				[]networkingv1.PolicyType{"Ingress", "Egress"}, []networkingv1.PolicyType{"Egress", "Ingress"}),
		},
	}
	np.Labels = d.enforcement()
	if d.oneIn(2) { // it selects more then, and more policies meet on a pod
		np.Spec.PodSelector = metav1.LabelSelector{}
	}
	if d.oneIn(8) {
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{}
	}
	if d.oneIn(8) {
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{}
	}
	for range d.IntN(4) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	for range d.IntN(4) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	return np
}

func (d *dice) peers() (out []networkingv1.NetworkPolicyPeer) {
	switch k := d.IntN(100); {
	case k < 8:
		return nil
	case k < 12:
		return []networkingv1.NetworkPolicyPeer{}
	case k == 12: // more than one entry of a PolicyEndpoint holds, each of which counts
		for range 100 {
			out = append(out, networkingv1.NetworkPolicyPeer{IPBlock: d.ipBlock(block{cidr: d.small()})})
		}
		return out
	}
	for range pick(d, 1, 1, 2, 3) {
		out = append(out, d.peer())
	}
	return out
}

// small draws a block of one address, or of few.
func (d *dice) small() netip.Prefix {
	a := d.address(d.ipv6 && (!d.ipv4 || d.oneIn(2)))
	return netip.PrefixFrom(a, a.BitLen()-pick(d, 0, 0, 0, 1, 2)).Masked()
}

func (d *dice) peer() (p networkingv1.NetworkPolicyPeer) {
	switch d.IntN(5) {
	case 0:
		p.PodSelector = d.selector()
	case 1:
		p.NamespaceSelector = d.namespaceSelector()
	case 2:
		p.PodSelector, p.NamespaceSelector = d.selector(), d.namespaceSelector()
	default:
		b := d.newBlock()
		if !d.oneIn(3) {
			b = pick(d, d.blocks...)
			if d.oneIn(3) { // the same CIDR with other excepts
				b.except = d.excepts(b.cidr)
			}
		}
		p.IPBlock = d.ipBlock(b)
	}
	return p
}

// block is an ipBlock before it is written.
type block struct {
	cidr   netip.Prefix
	except []netip.Prefix
}

func (d *dice) newBlock() block {
	addr := pick(d, d.addresses...)
	bits := pick(d, 0, 1, 8, 16, 23, 24, 27, 29, 30, 31, 32, 32)
	if addr.Is6() {
		bits = pick(d, 0, 1, 8, 32, 64, 112, 122, 123, 125, 127, 128, 128)
	}
	cidr := netip.PrefixFrom(addr, bits).Masked()
	return block{cidr, d.excepts(cidr)}
}

// excepts draws blocks strictly inside another, as the API server asks; they may overlap, or leave nothing.
func (d *dice) excepts(cidr netip.Prefix) (out []netip.Prefix) {
	room := cidr.Addr().BitLen() - cidr.Bits()
	if room == 0 {
		return nil
	}
	if d.oneIn(12) { // more than a peer of a PolicyEndpoint holds, each of which counts
		for range 60 {
			if e := d.small(); e.Bits() > cidr.Bits() && cidr.Contains(e.Addr()) {
				out = append(out, e)
			}
		}
		return out
	}
	for range pick(d, 0, 0, 0, 1, 1, 2, 3) {
		addr := d.inside(cidr)
		switch {
		case len(out) > 0 && d.oneIn(6):
			out = append(out, pick(d, out...))
		case d.oneIn(8):
			out = append(out, netip.PrefixFrom(addr, cidr.Bits()+1).Masked())
		case d.oneIn(2):
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
		default:
			out = append(out, netip.PrefixFrom(addr, cidr.Bits()+1+d.IntN(room)).Masked())
		}
	}
	return out
}

// inside draws an address inside a block, one of the cluster's where it can.
func (d *dice) inside(cidr netip.Prefix) netip.Addr {
	for range 8 {
		if a := pick(d, d.addresses...); cidr.Contains(a) {
			return a
		}
	}
	size := new(big.Int).Lsh(big.NewInt(1), uint(min(62, cidr.Addr().BitLen()-cidr.Bits())))
	n := new(big.Int).SetBytes(cidr.Addr().AsSlice())
	n.Add(n, big.NewInt(d.Int64N(size.Int64())))
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, cidr.Addr().BitLen()/8)))
	return a
}

func (d *dice) ipBlock(b block) *networkingv1.IPBlock {
	out := &networkingv1.IPBlock{CIDR: d.write(b.cidr)}
	for _, e := range b.except {
		out.Except = append(out.Except, d.write(e))
	}
	return out
}

// write writes a block in one of the ways that the API server lets pass, or let when the object was made.
func (d *dice) write(p netip.Prefix) string {
	a := p.Addr()
	if d.oneIn(4) { // host bits
		a = d.inside(p)
	}
	switch {
	case !d.oneIn(25):
		return netip.PrefixFrom(a, p.Bits()).String()
	case a.Is6():
		return strings.ToUpper(fmt.Sprintf("%s/%d", a.StringExpanded(), p.Bits()))
	case d.oneIn(2):
		return fmt.Sprintf("::ffff:%s/%d", a, 96+p.Bits())
	}
	b := a.As4()
	return fmt.Sprintf("%03d.%d.%02d.%03d/%d", b[0], b[1], b[2], b[3], p.Bits())
}

func (d *dice) ports() []networkingv1.NetworkPolicyPort {
	var n int
	switch k := d.IntN(100); {
	case k < 20:
		return nil
	case k < 28:
		return []networkingv1.NetworkPolicyPort{}
	case k == 28:
		n = 30
	default:
		n = 1 + d.IntN(4)
	}
	var out []networkingv1.NetworkPolicyPort
	for range n {
		out = append(out, d.port())
	}
	return out
}

func (d *dice) port() (p networkingv1.NetworkPolicyPort) {
	if !d.oneIn(3) {
		p.Protocol = new(pick(d, protocols...))
	}
	switch d.IntN(8) {
	case 0:
	case 1, 2:
		p.Port = new(intstr.FromString(pick(d, append(portNames, "nobodys")...)))
	case 3, 4, 5:
		p.Port = new(intstr.FromInt32(d.portNumber()))
	default:
		first, last := d.portNumber(), d.portNumber()
		p.Port, p.EndPort = new(intstr.FromInt32(min(first, last))), new(max(first, last))
	}
	return p
}

func (d *dice) portNumber() int32 {
	if d.oneIn(10) {
		return 1 + d.Int32N(65535)
	}
	return pick(d, portNumbers...)
}
