package migrate

import (
	"bytes"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate/calico/leftovers"
)

// What is found, and what is done about it, as people see it. internal/migrate/calico/leftovers tests that it is right.
func TestLeftovers(t *testing.T) {
	found := []leftovers.Leftover{
		{Kind: "rule", Name: "cali:wUHhoiAYhphO9Mso", Detail: "in FORWARD (nft, ip filter)"},
		{Kind: "chain", Name: "cali-FORWARD", Detail: "(nft, ip filter)"},
		{Kind: "link", Name: "cali0123456789a", Detail: "(veth)", Kept: "it leads into a pod's network namespace: drain the node, or delete the pod"},
	}
	for name, l := range map[string]*Leftovers{
		"clean-dry-run": {Found: found},
		"clean-done":    {Found: found, Removed: true},
		"clean-running": {Found: found[:2], Running: "calico-node (pid 17)"},
		"clean-nothing": {},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			l.write(&out, command.Paint(false))
			golden(t, name, out.String())
		})
	}
}
