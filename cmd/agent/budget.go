package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/internal/compiler"
)

// policyBudget is a flag: what the policies on one pod may cost, such as "rows=65536,ports=500000".
type policyBudget struct{ *compiler.Cost }

func (b policyBudget) fields() map[string]*int {
	return map[string]*int{"prefixes": &b.Prefixes, "rows": &b.Rows, "ports": &b.Ports, "steps": &b.Steps}
}

func (b policyBudget) String() string { return "" } // each has a default of its own

// Set reads the flag's value.
func (b policyBudget) Set(value string) error {
	for pair := range strings.SplitSeq(value, ",") {
		name, number, _ := strings.Cut(pair, "=")
		field, ok := b.fields()[name]
		if !ok {
			return fmt.Errorf("there is no resource %q; resources are %s", name, strings.Join(slices.Sorted(maps.Keys(b.fields())), ", "))
		}
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a number for %s", number, name)
		}
		*field = int(n)
	}
	return nil
}
