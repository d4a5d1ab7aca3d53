package policy

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// pack writes a slice's groups with their lists of slices, then its classes, each followed by its addresses. Numbers are
// varints; texts and lists begin with their length. check has accepted the spec.
func pack(spec *v1alpha1.PolicyEndpointSliceSpec, addresses []netip.Prefix) string {
	var out packer
	out.number(len(spec.Groups))
	for i := range spec.Groups {
		g := &spec.Groups[i]
		out.text(g.Namespace)
		out.text(g.Name)
		out.texts(g.Slices)
		out.texts(g.SharedSlices)
	}
	out.number(len(spec.Classes))
	for i := range spec.Classes {
		c := &spec.Classes[i]
		out.number(len(c.Groups))
		for _, g := range c.Groups {
			out.number(int(g))
		}
		out.number(int(c.Count))
		for _, p := range addresses[:c.Count] {
			out.prefix(p)
		}
		addresses = addresses[c.Count:]
	}
	return string(out)
}

type packer []byte

func (p *packer) number(n int) { *p = binary.AppendUvarint(*p, uint64(n)) }

func (p *packer) text(s string) {
	p.number(len(s))
	*p = append(*p, s...)
}

func (p *packer) texts(list []string) {
	p.number(len(list))
	for _, s := range list {
		p.text(s)
	}
}

// firstIPv6 is added to the length of IPv6 prefixes.
const firstIPv6 = 64

func (p *packer) prefix(prefix netip.Prefix) {
	length := byte(prefix.Bits())
	if prefix.Addr().Is6() {
		length += firstIPv6
	}
	*p = append(append(*p, length), prefix.Addr().AsSlice()...)
}

// unpacker is what is left to be read of a packed slice.
type unpacker string

func (u *unpacker) bytes(n int) string {
	out := string(*u)[:n]
	*u = (*u)[n:]
	return out
}

func (u *unpacker) number() (n int) {
	for shift := 0; ; shift += 7 {
		b := u.bytes(1)[0]
		if n |= int(b&0x7f) << shift; b < 0x80 {
			return n
		}
	}
}

// text returns a part of the packed slice, which stays in memory with it.
func (u *unpacker) text() string { return u.bytes(u.number()) }

func (u *unpacker) texts() []string {
	n := u.number()
	if n == 0 {
		return nil
	}
	out := make([]string, n)
	for i := range out {
		out[i] = strings.Clone(u.text())
	}
	return out
}

// skipTexts returns the length of a list.
func (u *unpacker) skipTexts() int {
	n := u.number()
	for range n {
		u.text()
	}
	return n
}

func (u *unpacker) prefix() netip.Prefix {
	length := int(u.bytes(1)[0])
	if length >= firstIPv6 {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte([]byte(u.bytes(16)))), length-firstIPv6)
	}
	return netip.PrefixFrom(netip.AddrFrom4([4]byte([]byte(u.bytes(4)))), length)
}
