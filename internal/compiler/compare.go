package compiler

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// Comparison names the sets that decide otherwise by some maps than they should.
type Comparison struct {
	// Differ are the sets with another answer for some flow, or by another rule.
	Differ map[SetID]bool
	// Open are those of them that may allow what they should deny. A set that is not among them only denies too much.
	Open map[SetID]bool
}

// Compare holds what a dataplane has against what it should have: maps that were written in part, because there was no room.
// Pods and Interfaces are not looked at.
func (t *Maps) Compare(have *Maps) Comparison {
	// What addresses are taken for: the classes that they should have and that they have.
	type mistake struct{ want, have ClassID }
	mistakes := map[mistake]bool{}
	compareClass := func(p netip.Prefix) {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			return // no packet that passes has such an address
		}
		if m := (mistake{t.Class(p), have.Class(p)}); m.want != m.have {
			mistakes[m] = true
		}
	}
	for addr := range differences(t.Addresses, have.Addresses) {
		compareClass(netip.PrefixFrom(addr, addr.BitLen()))
	}
	for p := range differences(t.Networks, have.Networks) {
		compareClass(p)
	}

	brokenLists := map[PortListID]bool{}
	for k := range differences(t.Ports, have.Ports) {
		brokenLists[k.PortList] = true
	}
	broken := differences(t.Rows, have.Rows)
	for k, row := range t.Rows {
		if brokenLists[row.PortList] {
			broken[k] = struct{}{}
		}
	}

	c := Comparison{Differ: map[SetID]bool{}, Open: map[SetID]bool{}}
	compareRow := func(s SetID, m mistake) {
		want, answers := t.Row(s, m.want)
		got, gotAny := have.Row(s, m.have)
		if answers == gotAny && want == got && !brokenLists[want.PortList] {
			return
		}
		c.Differ[s] = true
		denies := !gotAny || got.PortList == 0 && got.Default.Action == policy.Deny && got.Default.Names == [2]uint8{}
		allows := answers && want.PortList == 0 && want.Default.Action == policy.Allow
		if !denies && !allows {
			c.Open[s] = true
		}
	}
	for k := range broken {
		compareRow(k.Set, mistake{k.Class, k.Class})
	}
	for s := range t.sets(have) {
		for m := range mistakes {
			compareRow(s, m)
		}
	}
	return c
}

// sets are those that either maps have rows of.
func (t *Maps) sets(u *Maps) map[SetID]bool {
	out := map[SetID]bool{}
	for _, rows := range []map[RowKey]Row{t.Rows, u.Rows} {
		for k := range rows {
			out[k.Set] = true
		}
	}
	return out
}

// differences are the keys that one map lacks, or has another value of.
func differences[K, V comparable](a, b map[K]V) map[K]struct{} {
	out := map[K]struct{}{}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			out[k] = struct{}{}
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			out[k] = struct{}{}
		}
	}
	return out
}
