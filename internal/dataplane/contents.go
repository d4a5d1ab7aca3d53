package dataplane

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Contents are the entries of the maps that compiler.Maps describes, as plain data in the form that the
// kernel has: they can hold any entry that another process may have written, also one that compiler.Maps
// cannot express.
type Contents struct {
	Pods       map[bpf.FilterAddress]bpf.FilterPod
	Addresses  map[bpf.FilterAddress]uint32
	Networks   map[bpf.FilterNetworkKey]uint32
	Rows       map[bpf.FilterRowKey]bpf.FilterRow
	Ports      map[bpf.FilterPortKey]bpf.FilterDecision
	Interfaces map[uint32]bpf.FilterInterface
	Domains    map[bpf.FilterDomainKey]bpf.FilterDomain
	Resolvers  map[bpf.FilterResolverKey]uint32
}

// form is how the entries of one field of compiler.Maps, K and V, look in a BPF map, RK and RV.
type form[K comparable, V any, RK, RV comparable] struct {
	encodeKey   func(K) RK
	decodeKey   func(RK) K
	encodeValue func(V) RV
	decodeValue func(RV) V

	// valid reports whether a packet can have such a key; no entry is written for a key that none can have.
	// nil: all are valid.
	valid func(K) bool
	// canonical is a trie's key in place of which this one stands: the bits behind its prefix do not count. nil:
	// all bits of a key count.
	canonical func(RK) RK
	// standing are entries that the map has with these values when compiler.Maps lack them.
	standing map[K]V
}

var (
	podForm = form[netip.Addr, compiler.Pod, bpf.FilterAddress, bpf.FilterPod]{
		valid: onWire, encodeKey: encodeAddr, decodeKey: decodeAddr, encodeValue: encodePod, decodeValue: decodePod,
	}
	addressForm = form[netip.Addr, compiler.ClassID, bpf.FilterAddress, uint32]{
		valid: onWire, encodeKey: encodeAddr, decodeKey: decodeAddr, encodeValue: encodeClass, decodeValue: decodeClass,
	}
	networkForm = form[netip.Prefix, compiler.ClassID, bpf.FilterNetworkKey, uint32]{
		valid:     func(p netip.Prefix) bool { return onWire(p.Addr()) || p.Bits() < mappedBits },
		encodeKey: encodeNetwork, decodeKey: decodeNetwork, encodeValue: encodeClass, decodeValue: decodeClass,
		canonical: canonicalNetwork,
		// Keeps the families apart: with it no IPv4 address falls through to an IPv6 prefix such as ::/0.
		standing: map[netip.Prefix]compiler.ClassID{netip.PrefixFrom(netip.IPv4Unspecified(), 0): 0},
	}
	rowForm = form[compiler.RowKey, compiler.Row, bpf.FilterRowKey, bpf.FilterRow]{
		encodeKey: encodeRowKey, decodeKey: decodeRowKey, encodeValue: encodeRow, decodeValue: decodeRow,
	}
	portForm = form[compiler.PortKey, compiler.Decision, bpf.FilterPortKey, bpf.FilterDecision]{
		encodeKey: encodePort, decodeKey: decodePort, encodeValue: encodeDecision, decodeValue: decodeDecision,
		canonical: canonicalPort,
	}
	interfaceForm = form[uint32, compiler.Interface, uint32, bpf.FilterInterface]{
		encodeKey: encodeIndex, decodeKey: encodeIndex, encodeValue: encodeInterface, decodeValue: decodeInterface,
	}
	domainForm = form[string, compiler.Domain, bpf.FilterDomainKey, bpf.FilterDomain]{
		valid:     func(name string) bool { return len(name) < textMax },
		encodeKey: encodeDomainKey, decodeKey: decodeDomainKey, encodeValue: encodeDomain, decodeValue: decodeDomain,
		canonical: canonicalDomain,
	}
	resolverForm = form[netip.AddrPort, struct{}, bpf.FilterResolverKey, uint32]{
		valid:     func(a netip.AddrPort) bool { return onWire(a.Addr()) },
		encodeKey: encodeResolver, decodeKey: decodeResolver,
		encodeValue: func(struct{}) uint32 { return 1 }, decodeValue: func(uint32) struct{} { return struct{}{} },
	}
)

// value is what a map should hold under a key of the compiler's.
func (f *form[K, V, RK, RV]) value(want map[K]V, k K) (V, bool) {
	if v, ok := want[k]; ok {
		return v, f.valid == nil || f.valid(k)
	}
	v, ok := f.standing[k]
	return v, ok
}

func (f *form[K, V, RK, RV]) decode(have map[RK]RV) map[K]V {
	out := make(map[K]V, len(have))
	for k, v := range have {
		out[f.decodeKey(k)] = f.decodeValue(v)
	}
	return out
}

// Decode returns the contents in the compiler's terms.
func (c *Contents) Decode() *compiler.Maps {
	return &compiler.Maps{
		Pods:       podForm.decode(c.Pods),
		Addresses:  addressForm.decode(c.Addresses),
		Networks:   networkForm.decode(c.Networks),
		Rows:       rowForm.decode(c.Rows),
		Ports:      portForm.decode(c.Ports),
		Interfaces: interfaceForm.decode(c.Interfaces),
		Domains:    domainForm.decode(c.Domains),
		Resolvers:  resolverForm.decode(c.Resolvers),
	}
}
