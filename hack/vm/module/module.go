// Package module is the table of kernel modules that the machine's modprobe finds them by.
package module

import (
	"path"
	"strings"
)

// Table is where it is in the machine: a JSON list of Modules.
const Table = "/lib/modules/table.json"

// A Module of the kernel.
type Module struct {
	Name    string   // with underscores
	Aliases []string // patterns, as in modprobe.d(5)
	Needs   []string // names of others, which come first; built-in ones are in no table
}

// File is the module's, in the machine.
func (m Module) File() string { return "/lib/modules/" + m.Name + ".ko" }

// Normal is a module's name with underscores, as the kernel has it.
func Normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Find lists what a name or an alias asks for, needs first.
func Find(table []Module, want string) []Module {
	byName := map[string]Module{}
	for _, m := range table {
		byName[m.Name] = m
	}
	var found []Module
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		m, ok := byName[name]
		if !ok || seen[name] {
			return
		}
		seen[name] = true
		for _, need := range m.Needs {
			add(need)
		}
		found = append(found, m)
	}
	if add(Normal(want)); found != nil {
		return found
	}
	for _, m := range table {
		for _, alias := range m.Aliases {
			if ok, err := path.Match(alias, want); ok && err == nil {
				add(m.Name)
			}
		}
	}
	return found
}
