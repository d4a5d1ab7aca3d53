package dataplane

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Our own table in nftables. Its one chain hangs on no hook and costs no packet anything: that a rule asks for the
// conntrack state is enough for the kernel to track both families (nft_ct_get_init calls nf_ct_netns_get).
var (
	conntrackTable = &nftables.Table{Name: "kidoban", Family: nftables.TableFamilyINet}
	conntrackChain = &nftables.Chain{Name: "conntrack", Table: conntrackTable}
	conntrackRule  = []expr.Any{&expr.Ct{Key: expr.CtKeySTATE, Register: 1}}
)

// EnableConntrack makes sure that the kernel tracks connections of both families in the calling thread's network namespace,
// also when nobody else wants it. It may be repeated, and should be: a flushed ruleset takes it away.
func EnableConntrack() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	if rules, err := c.GetRules(conntrackTable, conntrackChain); err == nil && slices.ContainsFunc(rules, asksConntrack) {
		return nil
	}
	c.AddTable(conntrackTable)
	c.AddChain(conntrackChain)
	c.FlushChain(conntrackChain)
	c.AddRule(&nftables.Rule{Table: conntrackTable, Chain: conntrackChain, Exprs: conntrackRule})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("connection tracking cannot be switched on: the kernel refuses a rule with \"ct state\" in nftables' table inet kidoban; "+
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

// disableConntrack takes our table away. Who else needs conntrack keeps it.
func disableConntrack() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(conntrackTable)
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables' table inet kidoban: %w", err)
	}
	return nil
}
