package resolver

// label is a label's key and value.
type label struct{ key, value string }

// index finds the items whose selectors can match a set of labels without evaluating all of them: each item
// is filed under a label that its selector requires. Items whose selectors require none are always
// candidates.
type index[T comparable] struct {
	byValue map[label]map[T]struct{}
	byKey   map[string]map[T]struct{}
	rest    map[T]struct{}
}

func newIndex[T comparable]() index[T] {
	return index[T]{byValue: map[label]map[T]struct{}{}, byKey: map[string]map[T]struct{}{}, rest: map[T]struct{}{}}
}

func (x *index[T]) add(s selector, item T) {
	values, key := s.anchor()
	switch {
	case s.nothing:
	case values != nil:
		for _, l := range values {
			put(x.byValue, l, item)
		}
	case key != "":
		put(x.byKey, key, item)
	default:
		x.rest[item] = struct{}{}
	}
}

func (x *index[T]) remove(s selector, item T) {
	values, key := s.anchor()
	for _, l := range values {
		take(x.byValue, l, item)
	}
	take(x.byKey, key, item)
	delete(x.rest, item)
}

// candidates calls yield once with each item whose selector may match the labels.
func (x *index[T]) candidates(labels map[string]string, yield func(T)) {
	for k, v := range labels {
		for item := range x.byValue[label{k, v}] {
			yield(item)
		}
		for item := range x.byKey[k] {
			yield(item)
		}
	}
	for item := range x.rest {
		yield(item)
	}
}

// anchor returns what the selector requires: one of some values of one label, or else the presence of a
// label, or else nothing. Of several labels it takes the one with the fewest values.
func (s selector) anchor() (values []label, key string) {
	var best *constraint
	for i := range s.constraints {
		c := &s.constraints[i]
		switch {
		case c.absent:
		case c.except:
			key = c.label
		case best == nil || len(c.values) < len(best.values):
			best = c
		}
	}
	if best == nil {
		return nil, key
	}
	for _, v := range best.values {
		values = append(values, label{best.label, v})
	}
	return values, ""
}

func put[K, T comparable](m map[K]map[T]struct{}, key K, item T) {
	if m[key] == nil {
		m[key] = map[T]struct{}{}
	}
	m[key][item] = struct{}{}
}

func take[K, T comparable](m map[K]map[T]struct{}, key K, item T) {
	delete(m[key], item)
	if len(m[key]) == 0 {
		delete(m, key)
	}
}
