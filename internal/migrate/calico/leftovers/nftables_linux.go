package leftovers

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// chainPrefixes are those of Calico's chains, also of old versions.
var chainPrefixes = []string{"cali-", "califw-", "calitw-", "califh-", "calith-", "calipi-", "calipo-", "felix-"}

// commentPrefix is that of the comments of Calico's rules in chains of others.
const commentPrefix = "cali:"

func isOurs(chain string) bool {
	return slices.ContainsFunc(chainPrefixes, func(p string) bool { return strings.HasPrefix(chain, p) })
}

// nftables finds the tables that Calico has to itself, and what iptables-nft keeps for it in tables that all share.
func (n *Node) nftables() ([]Leftover, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("nftables: %w", err)
	}
	tables, err := c.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list the tables of nftables: %w", err)
	}
	chains, err := c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list the chains of nftables: %w", err)
	}
	var out []Leftover
	for _, t := range tables {
		if t.Name == "calico" {
			out = append(out, Leftover{Kind: "nftables table", Name: familyName(t.Family) + " " + t.Name, remove: func() error {
				c.DelTable(t)
				return c.Flush()
			}})
			continue
		}
		found, err := sharedTable(c, t, chains)
		if err != nil {
			return out, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return fmt.Sprint(f)
}

// sharedTable of iptables-nft: rules of Calico's in chains of others, then Calico's chains. All of a table goes in one transaction, with
// the first of them.
func sharedTable(c *nftables.Conn, t *nftables.Table, chains []*nftables.Chain) ([]Leftover, error) {
	if t.Family != nftables.TableFamilyIPv4 && t.Family != nftables.TableFamilyIPv6 {
		return nil, nil
	}
	var own []*nftables.Chain
	var rules []*nftables.Rule
	var out []Leftover
	where := "nft, " + familyName(t.Family) + " " + t.Name
	for _, chain := range chains {
		switch {
		case chain.Table.Name != t.Name || chain.Table.Family != t.Family:
		case isOurs(chain.Name):
			own = append(own, chain)
		default:
			all, err := c.GetRules(t, chain)
			if err != nil {
				return nil, fmt.Errorf("list the rules of chain %s in %s: %w", chain.Name, where, err)
			}
			for _, r := range all {
				if why := whyOurs(r); why != "" {
					rules = append(rules, r)
					out = append(out, Leftover{Kind: "rule", Name: why, Detail: fmt.Sprintf("in %s (%s)", chain.Name, where)})
				}
			}
		}
	}
	for _, chain := range own {
		out = append(out, Leftover{Kind: "chain", Name: chain.Name, Detail: "(" + where + ")"})
	}
	if len(out) > 0 {
		out[0].remove = func() error {
			for _, r := range rules {
				if err := c.DelRule(r); err != nil {
					return err
				}
			}
			for _, chain := range own {
				c.FlushChain(chain)
			}
			for _, chain := range own {
				c.DelChain(chain)
			}
			return c.Flush()
		}
	}
	return out, nil
}

// whyOurs is the comment or the jump that makes a rule Calico's; empty for one that is not.
func whyOurs(r *nftables.Rule) string {
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Match:
			if c, ok := e.Info.(*xt.Comment); ok && strings.HasPrefix(string(*c), commentPrefix) {
				return string(*c)
			}
		case *expr.Verdict:
			if (e.Kind == expr.VerdictJump || e.Kind == expr.VerdictGoto) && isOurs(e.Chain) {
				return "-j " + e.Chain
			}
		}
	}
	if _, comment, ok := strings.Cut(string(r.UserData), commentPrefix); ok {
		return commentPrefix + strings.TrimRight(comment, "\x00")
	}
	return ""
}
