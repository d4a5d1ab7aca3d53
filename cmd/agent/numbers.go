package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// setNumbers reads the value of a flag such as "rows=65536,ports=500000" into the fields with these names. Numbers are at least 1 and have at
// most this many bits. kind and number are for messages: what the names are of, and what a number is.
func setNumbers[T int | uint32](value, kind, number string, bits int, fields map[string]*T) error {
	for pair := range strings.SplitSeq(value, ",") {
		name, text, _ := strings.Cut(pair, "=")
		field, ok := fields[name]
		if !ok {
			return fmt.Errorf("there is no %s %q; %ss are %s", kind, name, kind, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		n, err := strconv.ParseUint(text, 10, bits)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number%s %s", text, number, name)
		}
		*field = T(n)
	}
	return nil
}
