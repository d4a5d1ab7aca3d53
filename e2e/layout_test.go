//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/e2e/cluster"
)

const (
	layoutBegin = "<!-- make test-cni writes from here … -->\n"
	layoutEnd   = "<!-- … to here: test-cni -->\n"
	layoutHead  = "| cluster | tests passed | Kubernetes | Linux | took | date |\n|---|---|---|---|---:|---|\n"
)

// writeLayout puts the cluster's row into a page, after all tests have passed.
func writeLayout(ctx context.Context, page string, took time.Duration) error {
	content, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(content), layoutBegin)
	between, after, ok2 := strings.Cut(rest, layoutEnd)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s: the marks of the table are gone", page)
	}
	version, err := cluster.Output(test.Kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.kubeletVersion}"))
	if err != nil {
		return err
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return err
	}
	key := fmt.Sprintf("| `%s` |", strings.Join(layout(), " "))
	tests := strings.NewReplacer("^Test(", "", ")$", "", "|", ", ").Replace(flag.Lookup("test.run").Value.String())
	rows := []string{fmt.Sprintf("%s %s | %s | %s | %s | %s |\n", key, tests, version, unix.ByteSliceToString(uname.Release[:]),
		took.Round(time.Second), time.Now().UTC().Format(time.DateOnly))}
	for line := range strings.Lines(strings.TrimPrefix(between, layoutHead)) {
		if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, key) {
			rows = append(rows, line)
		}
	}
	slices.Sort(rows)
	return os.WriteFile(page, []byte(before+layoutBegin+layoutHead+strings.Join(rows, "")+layoutEnd+after), 0o644)
}
