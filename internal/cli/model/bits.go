package model

// bits are the parts of a pod's possible addresses for which something holds. Of a known address there is one part.
type bits struct {
	all  bool
	some []uint64 // nil where none or all
}

func (b bits) none() bool { return !b.all && b.some == nil }

// has reports whether the i-th part is among them.
func (b bits) has(i int) bool { return b.all || b.some != nil && b.some[i/64]&(1<<(i%64)) != 0 }

// or is the union, where there are n parts.
func (b bits) or(c bits, n int) bits {
	switch {
	case b.all || c.none():
		return b
	case c.all || b.none():
		return c
	}
	out := make([]uint64, len(b.some))
	for i := range out {
		out[i] = b.some[i] | c.some[i]
	}
	return newBits(out, n)
}

// and is what is in both, where there are n parts.
func (b bits) and(c bits, n int) bits {
	switch {
	case b.none() || c.all:
		return b
	case c.none() || b.all:
		return c
	}
	out := make([]uint64, len(b.some))
	for i := range out {
		out[i] = b.some[i] & c.some[i]
	}
	return newBits(out, n)
}

// minus is what is in b and not in c, where there are n parts.
func (b bits) minus(c bits, n int) bits {
	switch {
	case b.none() || c.none():
		return b
	case c.all:
		return bits{}
	}
	out := make([]uint64, len(c.some))
	for i := range out {
		out[i] = ^uint64(0)
		if b.some != nil {
			out[i] = b.some[i]
		}
		out[i] &^= c.some[i]
	}
	if rest := n % 64; rest > 0 {
		out[len(out)-1] &= 1<<rest - 1
	}
	return newBits(out, n)
}

// within reports whether all of b is in c.
func (b bits) within(c bits) bool {
	switch {
	case c.all || b.none():
		return true
	case b.all || c.none():
		return false
	}
	for i := range b.some {
		if b.some[i]&^c.some[i] != 0 {
			return false
		}
	}
	return true
}

// newBits of n parts, normalised.
func newBits(words []uint64, n int) bits {
	none, all := true, true
	for i, w := range words {
		full := ^uint64(0)
		if rest := n - i*64; rest < 64 {
			full = 1<<rest - 1
		}
		none, all = none && w == 0, all && w == full
	}
	switch {
	case none:
		return bits{}
	case all:
		return bits{all: true}
	}
	return bits{some: words}
}
