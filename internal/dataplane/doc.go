// Package dataplane loads compiler.Maps into BPF maps and puts the program that reads them on netfilter's
// forward hook.
//
// A Dataplane is one generation: maps and a program of its own, filled before the program judges anything,
// pinned so that they outlive the process, and removed by the next generation once that one judges. Packages
// below it: bpf has the program and its types in Go, events what the program reports, conntrack the kernel's
// connections, and inspect the node. docs/dataplane.md describes all of it.
package dataplane

// The object is the same on every machine with the same clang and libbpf-dev: no path and no version gets
// into it.
//
//go:generate go tool -modfile=../../hack/go.mod bpf2go -go-package bpf -output-dir bpf -target bpfel -no-global-types -type address -type pod -type interface -type network_key -type row_key -type row -type decision -type port_key -type revoked_key -type revocation -type revoked_kind -type tunnel_key -type event -type repeat_key -type repeat_flags -type repeat -type hit_key -type verdict -type reason -type event_mode -type guard -type domain_key -type domain -type resolver_key -type learned_address -type place_key -type place -type name -type answer -type miss -type missed_address Filter bpf/filter.c -- -mcpu=v3 -Wall -Wextra -Werror
