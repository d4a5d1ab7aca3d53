package main

import (
	"flag"
	"fmt"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// names are the flags about DNS names.
type names struct {
	dataplane.NameOptions
	unlearnable prefixes
}

// options are those of the Dataplane.
func (n *names) options() dataplane.NameOptions {
	out := n.NameOptions
	out.Unlearnable = n.unlearnable
	return out
}

func (n *names) bind(fs *flag.FlagSet) {
	fs.BoolVar(&n.On, "domain-names", true, "Enforce domain names in policies: learn the addresses of names from the answers of trusted resolvers. Without it, policies with domain names isolate their pods and allow nothing by name.")
	fs.DurationVar(&n.MinTTL, "domain-name-min-ttl", 30*time.Second, "Shortest time for which an address of a name is allowed, also where the answer's TTL is shorter or 0. Clients that cache names longer than their TTL, such as Java, may need more.")
	fs.DurationVar(&n.MaxTTL, "domain-name-max-ttl", time.Hour, "Longest time for which an address of a name is allowed, also where the answer's TTL is longer.")
	fs.Var(&n.unlearnable, "domain-name-deny-cidrs", "CIDRs, separated by commas, that domain names never allow, whatever a resolver answers; besides loopback, link-local, multicast and unspecified addresses and those of the cloud's metadata.")
}

func (n *names) check() error {
	if n.MinTTL < time.Second || n.MaxTTL < n.MinTTL || n.MaxTTL > 7*24*time.Hour {
		return fmt.Errorf("--domain-name-min-ttl=%v --domain-name-max-ttl=%v: give at least 1s, at most 168h, and no maximum below the minimum", n.MinTTL, n.MaxTTL)
	}
	return nil
}
