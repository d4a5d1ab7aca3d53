//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/link"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestUninstall takes everything away by one command: objects, and on each node links, pins and the table in nftables. Connections
// that were allowed live on, and the others are open afterwards, as in a cluster that has no policy engine.
func TestUninstall(t *testing.T) {
	database := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	create(t, database)
	tables := awaitInForce(t)
	links := map[string][]link.ID{}
	for _, node := range nodes {
		ids, err := test.PinnedLinks(node)
		if err != nil || len(ids) != 2 {
			t.Fatalf("%s: links %v, want one a family: %v", node, ids, err)
		}
		if left := leftOnNode(t, node, ids); left == "" {
			t.Fatalf("the test cannot see what kidoban has on %s", node)
		}
		links[node] = ids
	}
	allowed := startTraffic(t, tables, "backend", matrix.Column{Group: "database", Port: "5432"})

	t.Cleanup(func() { applyOverlay(t, engine.Overlay{Root: test.Repo, Base: "config/overlays/local", Tag: "dev"}) })
	cleanup := engine.Overlay{Root: test.Repo, Base: "config/cleanup", Tag: "dev"}
	if err := cleanup.Use(func(dir string) error {
		cmd := test.Make(t.Context(), "uninstall", "OVERLAY=config/overlays/local", "CLEANUP="+dir)
		out, err := cmd.CombinedOutput()
		t.Logf("%s", out)
		return err
	}); err != nil {
		t.Fatal(err)
	}

	for _, node := range nodes {
		if left := leftOnNode(t, node, links[node]); left != "" {
			t.Errorf("on %s is left:\n%s", node, left)
		}
	}
	objects, err := cluster.Output(test.Kubectl(t.Context(), "get", "namespaces,crds,clusterroles,clusterrolebindings", "-o", "name", "-l", "app.kubernetes.io/part-of=kidoban"))
	if err != nil || objects != "" {
		t.Errorf("the cluster has %q: %v", objects, err)
	}
	allowed.await(t, 3)
	allowed.stop(t)
	for _, target := range targets(tables, "database", "5432") {
		expect(t, "frontend", target, reach.Open)
	}
}

var nodes = []string{"n1", "n2"}

// leftOnNode says what of kidoban is on a node, of links with these IDs and of everything else; nothing: "".
func leftOnNode(t *testing.T, node string, links []link.ID) string {
	t.Helper()
	var left strings.Builder
	for _, id := range links {
		l, err := link.NewFromID(id)
		if err == nil {
			fmt.Fprintf(&left, "link %d\n", id)
			_ = l.Close()
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	bpffs, err := test.BPFFS(node)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bpffs, "kidoban")); !errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(&left, "pins: %v\n", err)
	}
	tables, err := cluster.Output(test.OnNode(t.Context(), node, "nft", "list", "tables"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(tables, "kidoban") {
		left.WriteString(tables)
	}
	return left.String()
}

// targets are those that tables have for a port of a workload's pods, in both families.
func targets(tables []*matrix.Table, group, port string) []reach.Target {
	seen := map[reach.Target]bool{}
	var out []reach.Target
	for _, p := range tables[0].Probes {
		target := p.Endpoint.Target
		if p.Endpoint.Column == (matrix.Column{Group: group, Port: port}) && !seen[target] {
			seen[target] = true
			out = append(out, target)
		}
	}
	return out
}

// expect connects from all pods of a workload until the outcome is the one wanted.
func expect(t *testing.T, from string, target reach.Target, want reach.Outcome) {
	t.Helper()
	for _, pod := range pods(t, from) {
		eventually(t, fmt.Sprintf("%s → %s: %s", pod.Name, target, want), func(ctx context.Context) error {
			results, err := test.Dial(ctx, &pod, []reach.Target{target}, probeTimeout)
			if err != nil {
				return err
			}
			if r := results[0]; r.Outcome != want {
				return fmt.Errorf("%s %s", r.Outcome, r.Error)
			}
			return nil
		})
	}
}
