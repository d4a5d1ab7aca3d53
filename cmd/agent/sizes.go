package main

import (
	"github.com/kidoban/kidoban/internal/dataplane"
)

// mapSizes is a flag: the most entries of some BPF maps, such as "addresses=1000000,rows=600000".
type mapSizes struct{ *dataplane.Sizes }

func (s mapSizes) fields() map[string]*uint32 {
	return map[string]*uint32{
		"pods": &s.Pods, "addresses": &s.Addresses, "networks": &s.Networks, "rows": &s.Rows, "ports": &s.Ports,
		"interfaces": &s.Interfaces, "revoked": &s.Revoked,
		"domains": &s.Domains, "resolvers": &s.Resolvers, "learned": &s.Learned, "names": &s.Names,
	}
}

func (s mapSizes) String() string { return "" } // each has a default of its own

// Set reads the flag's value.
func (s mapSizes) Set(value string) error {
	return setNumbers(value, "map", " of entries for the map", 32, s.fields())
}
