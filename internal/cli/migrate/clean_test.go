package migrate

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
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

// TestRootIsNoNode: where no node's root is, nothing is found, which is not the same as nothing being left.
func TestRootIsNoNode(t *testing.T) {
	file, empty, withoutProcesses := filepath.Join(t.TempDir(), "file"), t.TempDir(), t.TempDir()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"etc", "proc"} {
		if err := os.Mkdir(filepath.Join(withoutProcesses, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct{ root, want string }{
		"missing":           {"/nonexistent", "no such file or directory"},
		"below a file":      {file + "/x", "not a directory"},
		"a file":            {file, "is not a directory"},
		"empty":             {empty, "there is no etc"},
		"without processes": {withoutProcesses, "no process is in its /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, args := range [][]string{{"calico", "clean", "--root", tc.root}, {"calico", "clean", "--yes", "--root", tc.root}, {"calico", "check", "--node", "--root", tc.root}} {
				got := runMigrate(args...)
				if !strings.Contains(got, tc.want) || !strings.Contains(got, "exit code 2") {
					t.Errorf("%v: %s", args, got)
				}
			}
		})
	}
	if got := runMigrate("calico", "check", "--root", "/"); !strings.Contains(got, "--root is for --node") {
		t.Error(got)
	}
}
