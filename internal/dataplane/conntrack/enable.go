package conntrack

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Our own table in nftables. Its one chain is attached to no hook, so no packet runs through it. A rule that
// reads the conntrack state makes the kernel track both families (nft_ct_get_init calls nf_ct_netns_get).
var (
	ourTable = &nftables.Table{Name: "kidoban", Family: nftables.TableFamilyINet}
	ourChain = &nftables.Chain{Name: "conntrack", Table: ourTable}
	ourRule  = []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}
)

// Enable makes sure that the kernel tracks connections of both families in the calling thread's network
// namespace, also when no other software asks for it. Call it again now and then: a flush of the ruleset
// removes the table.
func Enable() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if rules, err := c.GetRules(ourTable, ourChain); err == nil && slices.ContainsFunc(rules, asksConntrack) {
		return nil
	}
	c.AddTable(ourTable)
	c.AddChain(ourChain)
	c.FlushChain(ourChain)
	c.AddRule(&nftables.Rule{Table: ourTable, Chain: ourChain, Exprs: ourRule})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("connection tracking cannot be switched on: the kernel rejects a rule with \"ct state\" in nftables' table inet kidoban; "+
			"load the modules nf_tables, nft_ct and nf_conntrack on the node: %w", err)
	}
	return nil
}

func asksConntrack(r *nftables.Rule) bool {
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		_, ok := e.(*expr.Ct)
		return ok
	})
}

// Disable deletes our table. Connections are still tracked where other software needs it.
func Disable() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(ourTable)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables' table inet kidoban: %w", err)
	}
	return nil
}
