//go:build e2e && recorded

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// usual are the connections that the shop's workloads open again and again, by source: by Pod IP, and by Service.
var usual = map[string][]matrix.Column{
	"frontend":   {{Group: "backend", Port: "8000"}, {Group: "backend", Port: "80"}, {Group: "kube-dns", Port: "53/udp"}},
	"backend":    {{Group: "database", Port: "5432"}, {Group: "partner", Port: "443"}, {Group: "kube-dns", Port: "53/udp"}},
	"prometheus": {{Group: "frontend", Port: "9090"}, {Group: "backend", Port: "9090"}, {Group: "database", Port: "9187"}},
	"outside":    {{Group: "frontend", Port: "8080"}},
}

// isUsual reports whether a probe is a usual connection. Policies always allow DNS, which has TCP, too.
func isUsual(p *matrix.Probe) bool {
	isDNS := p.Endpoint.Column == matrix.Column{Group: "kube-dns", Port: "53"} && (p.Source.Row == "frontend" || p.Source.Row == "backend")
	return isDNS || slices.Contains(usual[p.Source.Row], p.Endpoint.Column)
}

// unusual is a connection that the page's reader decides about.
const unusual = "shop/frontend > shop/database TCP 5440"

// Files that the page's commands write.
const (
	migrationRecording = "/tmp/shop.jsonl"
	migrationStaged    = "/tmp/shop-staged.yaml"
	migrationPolicies  = "/tmp/shop.yaml"
)

// verifyMigration runs docs/verify-migration.md as it is printed while the shop's workloads open their usual connections, none of which may ever be
// denied. One connection that is not usual is opened once while all is recorded, again while policies are staged, and must be denied at the end.
func verifyMigration(t *testing.T, tables []*matrix.Table) {
	t.Cleanup(func() { // of a page that ended early
		if _, err := cluster.Output(test.Kubectl(context.Background(), "-n", "shop", "delete", "networkpolicies", "-l", "app.kubernetes.io/managed-by=kidoban-recommend")); err != nil {
			t.Error(err)
		}
		for _, file := range []string{migrationRecording, migrationStaged, migrationPolicies} {
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	o := connectToObserver(t)
	since := pause(t)
	frontend, database := pods(t, "frontend")[0], pods(t, "database")[0]
	want := map[string]bool{}
	for _, table := range tables {
		for i := range table.Probes {
			if p := &table.Probes[i]; slices.Contains(usual[p.Source.Row], p.Endpoint.Column) {
				want[keyOf(p)] = true
			}
		}
	}
	var stop func()
	steps := map[string]func(){
		"Prerequisites": func() { stop = startUsual(t, tables) },
		"1. Record": func() {
			wantDial(t, &frontend, &database, 5440, reach.Open)
			o.awaitFlows(t, since, func(flows []observerapi.Flow) error {
				seen := connectionsOf(flows)
				for key := range want {
					if seen[key+" Allowed"] < 2 {
						return fmt.Errorf("%s is not recorded twice", key)
					}
				}
				if seen[unusual+" Allowed"] != 1 {
					return fmt.Errorf("%s is not recorded once", unusual)
				}
				return nil
			})
		},
		"2. Stage": func() {},
		"3. Compare": func() {
			for range 2 {
				wantDial(t, &frontend, &database, 5440, reach.Open)
			}
			o.awaitConnections(t, since, unusual, observerapi.WouldBeDeny, 2)
		},
		"4. Enforce": func() {},
		"5. Watch": func() {
			wantDial(t, &frontend, &database, 5440, reach.TimedOut)
			o.awaitConnections(t, since, unusual, observerapi.Denied, 1)
			stop()
			checkEnforced(t)
			checkRecommended(t)
		},
		"Go back":  func() {},
		"Clean up": func() { wantDial(t, &frontend, &database, 5440, reach.Open) },
	}
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	runSections(t, steps)
	awaitInForce(t)
}

// runSections runs the commands that pages show for a cluster with an observer. Before each section it calls the function of its heading.
func runSections(t *testing.T, before map[string]func()) {
	t.Helper()
	docs := docsCommand(t, docsPrograms(t), "--kind=observer", "--step", "--timeout=10m")
	in, err := docs.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }() // which ends it
	out, err := docs.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var failures strings.Builder
	docs.Stderr = &failures
	if err := docs.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		t.Log(lines.Text())
		section, ok := strings.CutPrefix(lines.Text(), "section docs/verify-migration.md: ")
		if !ok {
			continue
		}
		step := before[section]
		if step == nil {
			t.Fatalf("the page has a section %q, about which the test knows nothing", section)
		}
		delete(before, section)
		step()
		if _, err := fmt.Fprintln(in); err != nil {
			t.Fatal(err)
		}
	}
	if err := docs.Wait(); err != nil {
		t.Errorf("%v: %s", err, &failures)
	}
	if len(before) > 0 && !t.Failed() {
		t.Errorf("the page lacks the sections %q", slices.Sorted(maps.Keys(before)))
	}
}

// startUsual opens the usual connections again and again, until stop is called or the test ends. None may fail.
func startUsual(t *testing.T, tables []*matrix.Table) (stop func()) {
	t.Helper()
	var watches []*cluster.Watch
	for source := range usual {
		if source == "outside" {
			continue
		}
		for _, pod := range pods(t, source) {
			var targets []reach.Target
			for _, table := range tables {
				for i := range table.Probes {
					if p := &table.Probes[i]; p.Source.Name == pod.Namespace+"/"+pod.Name && slices.Contains(usual[source], p.Endpoint.Column) {
						targets = append(targets, p.Endpoint.Target)
					}
				}
			}
			watch, err := test.WatchEvery(context.Background(), time.Second, &pod, targets, nil, probeTimeout)
			if err != nil {
				t.Fatal(err)
			}
			watches = append(watches, watch)
		}
	}
	for range 2 {
		results, err := test.DialOutside(t.Context(), build.Probe, targets(tables, "frontend", "8080"), probeTimeout)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Outcome != reach.Open {
				t.Errorf("from outside: %+v", r)
			}
		}
	}
	return func() {
		connections := 0
		for _, watch := range watches {
			results, err := watch.Stop()
			if err != nil {
				t.Error(err)
			}
			for _, r := range results {
				if connections++; r.Outcome != reach.Open {
					t.Errorf("a usual connection to %s: %s %s", r.Target, r.Outcome, r.Error)
				}
			}
		}
		if watches != nil {
			t.Logf("%d usual connections", connections)
		}
		watches = nil
	}
}

// checkEnforced connects from everywhere to everywhere under the recommended policies: what was recorded is allowed and, where a workload is isolated,
// nothing else.
func checkEnforced(t *testing.T) {
	t.Helper()
	outcomes := map[reach.Outcome]int{}
	for i, table := range awaitInForce(t) {
		for j := range table.Probes {
			p := &table.Probes[j]
			isService := i == 1 // whose ports are others than the pods'
			isolated := slices.Contains([]string{"frontend", "backend", "database"}, p.Endpoint.Column.Group) || p.Source.Row == "frontend" || p.Source.Row == "backend"
			want := reach.Open
			if isolated && !isUsual(p) {
				want = reach.TimedOut
			}
			outcomes[p.Result.Outcome]++
			if !isService && p.Result.Outcome != want {
				t.Errorf("under recommended policies, want %s: %s", want, p.String())
			}
		}
	}
	if outcomes[reach.Open] < 20 || outcomes[reach.TimedOut] < 20 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// checkRecommended asks the evaluators of kube-network-policies about the recorded flows under the recommended policies.
func checkRecommended(t *testing.T) {
	t.Helper()
	found := false
	for _, is := range judgeRecorded(t, migrationRecording, migrationPolicies) {
		switch {
		case is.Lacks != "" || is.Verdict != observerapi.Allowed || !is.isOf("shop"):
		case is.key() == unusual:
			if found = true; is.Allowed {
				t.Errorf("%s was seen once, and is allowed", is.key())
			}
		case !is.Allowed:
			t.Errorf("%s was recorded, and kube-network-policies denies it", is.key())
		}
	}
	if !found {
		t.Errorf("%s is not in the recording", unusual)
	}
}
