package main

import (
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
	return setNumbers(value, "resource", " for", 31, b.fields())
}
