package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// mapSizes is a flag: the most entries of some BPF maps, such as "addresses=1000000,rows=600000".
type mapSizes struct{ *dataplane.Sizes }

func (s mapSizes) fields() map[string]*uint32 {
	return map[string]*uint32{
		"pods": &s.Pods, "addresses": &s.Addresses, "networks": &s.Networks, "rows": &s.Rows, "ports": &s.Ports,
		"interfaces": &s.Interfaces, "revoked": &s.Revoked,
	}
}

func (s mapSizes) String() string { return "" } // each has a default of its own

// Set reads the flag's value.
func (s mapSizes) Set(value string) error {
	for pair := range strings.SplitSeq(value, ",") {
		name, number, _ := strings.Cut(pair, "=")
		field, ok := s.fields()[name]
		if !ok {
			return fmt.Errorf("there is no map %q; maps are %s", name, strings.Join(slices.Sorted(maps.Keys(s.fields())), ", "))
		}
		n, err := strconv.ParseUint(number, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number of entries for the map %s", number, name)
		}
		*field = uint32(n)
	}
	return nil
}
