package compiler

import "math/bits"

// A tree is a set of numbers that never changes, as a binary trie without nodes of one child. A forest holds each set
// once: equal sets are the same pointer, and sets that differ in few numbers share nearly all of their nodes. A set that
// differs from another by one number thus costs log n, however large both are. The empty set is nil.
type tree[T any] struct {
	prefix uint32 // of all its numbers; a leaf's only one
	bit    int8   // in which the numbers of left and right differ; -1 for a leaf
	l, r   *tree[T]

	refs    int32      // branches and holders outside of the forest
	parents []*tree[T] // the branches that it is a child of
	li, ri  int32      // a branch's place among the parents of l and r

	data T
}

type pair[T any] struct{ l, r *tree[T] }

// A forest makes trees. What it returns is not held: the caller retains it, or discards it.
type forest[T any] struct {
	leaves   map[uint32]*tree[T]
	branches map[pair[T]]*tree[T]
	// unions keeps results of union, in a forest that is used for a short time.
	unions map[pair[T]]*tree[T]
	// grown is called for a new branch.
	grown func(*tree[T])
	work  *int // counts steps
}

func newForest[T any](work *int) forest[T] {
	return forest[T]{leaves: map[uint32]*tree[T]{}, branches: map[pair[T]]*tree[T]{}, work: work}
}

func (x *tree[T]) isLeaf() bool { return x.bit < 0 }

// covers reports whether a number has the prefix of a tree's numbers.
func (x *tree[T]) covers(n uint32) bool { return n>>(x.bit+1) == x.prefix>>(x.bit+1) }

// last is the largest number with the prefix.
func (x *tree[T]) last() uint32 { return x.prefix | (1<<(x.bit+1) - 1) }

// onLeft reports on which side of a branch the number is, which it covers.
func (x *tree[T]) onLeft(n uint32) bool { return n>>x.bit&1 == 0 }

func (f *forest[T]) leaf(n uint32) *tree[T] {
	x := f.leaves[n]
	if x == nil {
		x = &tree[T]{prefix: n, bit: -1}
		f.leaves[n] = x
	}
	return x
}

// branch is the tree of two that are apart, l's numbers being smaller.
func (f *forest[T]) branch(l, r *tree[T]) *tree[T] {
	switch {
	case l == nil:
		return r
	case r == nil:
		return l
	}
	*f.work++
	if x := f.branches[pair[T]{l, r}]; x != nil {
		return x
	}
	bit := int8(bits.Len32(l.prefix^r.prefix) - 1)
	x := &tree[T]{prefix: l.prefix &^ (1<<(bit+1) - 1), bit: bit, l: l, r: r, li: int32(len(l.parents)), ri: int32(len(r.parents))}
	l.refs++
	r.refs++
	l.parents = append(l.parents, x)
	r.parents = append(r.parents, x)
	f.branches[pair[T]{l, r}] = x
	if f.grown != nil {
		f.grown(x)
	}
	return x
}

func (f *forest[T]) join(a, b *tree[T]) *tree[T] {
	if a.prefix < b.prefix {
		return f.branch(a, b)
	}
	return f.branch(b, a)
}

func (f *forest[T]) union(a, b *tree[T]) *tree[T] {
	switch {
	case a == nil || a == b:
		return b
	case b == nil:
		return a
	case a.bit < b.bit:
		a, b = b, a
	}
	*f.work++
	if f.unions == nil {
		return f.merge(a, b)
	}
	if x := f.unions[pair[T]{a, b}]; x != nil {
		return x
	}
	x := f.merge(a, b)
	f.unions[pair[T]{a, b}] = x
	return x
}

// merge is union for two trees that are not the same, the first being at least as wide.
func (f *forest[T]) merge(a, b *tree[T]) *tree[T] {
	switch {
	case a.bit == b.bit && a.prefix == b.prefix:
		return f.branch(f.union(a.l, b.l), f.union(a.r, b.r))
	case a.bit == b.bit || !a.covers(b.prefix):
		return f.join(a, b)
	case a.onLeft(b.prefix):
		return f.branch(f.union(a.l, b), a.r)
	}
	return f.branch(a.l, f.union(a.r, b))
}

// difference is a without the numbers of b.
func (f *forest[T]) difference(a, b *tree[T]) *tree[T] {
	if a == b || a == nil {
		return nil
	}
	if b == nil {
		return a
	}
	*f.work++
	switch {
	case a.bit == b.bit:
		if a.prefix != b.prefix {
			return a
		}
		return f.branch(f.difference(a.l, b.l), f.difference(a.r, b.r))
	case a.bit > b.bit:
		if !a.covers(b.prefix) {
			return a
		}
		if a.onLeft(b.prefix) {
			return f.branch(f.difference(a.l, b), a.r)
		}
		return f.branch(a.l, f.difference(a.r, b))
	case !b.covers(a.prefix):
		return a
	case b.onLeft(a.prefix):
		return f.difference(a, b.l)
	}
	return f.difference(a, b.r)
}

// within reports whether all numbers of a are b's.
func (a *tree[T]) within(b *tree[T]) bool {
	switch {
	case a == nil || a == b:
		return true
	case b == nil || a.bit > b.bit:
		return false
	case a.bit == b.bit:
		return a.prefix == b.prefix && !a.isLeaf() && a.l.within(b.l) && a.r.within(b.r)
	case !b.covers(a.prefix):
		return false
	case b.onLeft(a.prefix):
		return a.within(b.l)
	}
	return a.within(b.r)
}

// each calls fn with the leaves, in order.
func (x *tree[T]) each(fn func(leaf *tree[T])) {
	switch {
	case x == nil:
	case x.isLeaf():
		fn(x)
	default:
		x.l.each(fn)
		x.r.each(fn)
	}
}

// any reports whether fn is true for a leaf.
func (x *tree[T]) any(fn func(leaf *tree[T]) bool) bool {
	switch {
	case x == nil:
		return false
	case x.isLeaf():
		return fn(x)
	}
	return x.l.any(fn) || x.r.any(fn)
}

// eachAbove calls fn with a tree and all that contain it, but for those seen before.
func (x *tree[T]) eachAbove(seen map[*tree[T]]struct{}, fn func(*tree[T])) {
	if _, ok := seen[x]; ok {
		return
	}
	seen[x] = struct{}{}
	fn(x)
	for _, p := range x.parents {
		p.eachAbove(seen, fn)
	}
}

// replace makes a holder hold another tree than before.
func (f *forest[T]) replace(holder **tree[T], x *tree[T]) {
	old := *holder
	if x != nil {
		x.refs++
	}
	*holder = x
	if old != nil {
		old.refs--
		f.discard(old)
	}
}

// discard forgets a tree unless something holds it.
func (f *forest[T]) discard(x *tree[T]) {
	if x == nil || x.refs > 0 {
		return
	}
	if x.isLeaf() {
		delete(f.leaves, x.prefix)
		return
	}
	delete(f.branches, pair[T]{x.l, x.r})
	x.l.disown(x.li)
	x.r.disown(x.ri)
	f.discard(x.l)
	f.discard(x.r)
}

// disown takes the parent at a place out.
func (x *tree[T]) disown(at int32) {
	x.refs--
	last := len(x.parents) - 1
	p := x.parents[last]
	x.parents[at] = p
	if p.l == x {
		p.li = at
	} else {
		p.ri = at
	}
	x.parents[last] = nil
	x.parents = x.parents[:last]
}
