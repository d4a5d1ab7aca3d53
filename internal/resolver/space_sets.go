package resolver

import (
	"encoding/binary"
	"slices"
)

// A set of groups or of slices is sorted, without duplicates.

// keyOf is a set of groups as a key of a map.
func keyOf(groups []int32) string {
	out := make([]byte, 0, 4*len(groups))
	for _, id := range groups {
		out = binary.LittleEndian.AppendUint32(out, uint32(id))
	}
	return string(out)
}

// hasID reports whether a sorted set contains an element.
func hasID(set []int32, id int32) bool {
	_, ok := slices.BinarySearch(set, id)
	return ok
}

// join merges two sorted sets.
func join(a, b []int32) []int32 {
	out := make([]int32, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case a[0] > b[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

func insert(set []int32, n int32) []int32 {
	at, ok := slices.BinarySearch(set, n)
	if ok {
		return set
	}
	return slices.Insert(set, at, n)
}

func withoutID(set []int32, n int32) []int32 {
	at, ok := slices.BinarySearch(set, n)
	if !ok {
		return set
	}
	return slices.Delete(set, at, at+1)
}
