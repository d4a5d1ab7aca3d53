package lab_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/drawn"
	"github.com/kidoban/kidoban/internal/cli/explain"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

var (
	manifests = flag.Uint64("manifests", 2, "how many drawn manifests TestPacketsAgreeWithExplainAndDiff connects the pods of")
	firstSeed = flag.Uint64("first-seed", 0, "the seed of the first of them, as a failure names it")
)

// cell of the lab's JSON.
type cell struct {
	From, To          model.Workload
	Port              uint16
	Verdict, Measured string
	Assumed           bool
}

type pair struct {
	from, to model.Workload
	port     uint16
}

// What explain, diff and replay print of drawn manifests is what packets do between the pods, and between them and addresses outside.
func TestPacketsAgreeWithExplainAndDiff(t *testing.T) {
	program := binary(t)
	for seed := *firstSeed; seed < *firstSeed+*manifests; seed++ {
		m := drawn.New(seed)
		before, after := m.Workloads+m.Before, m.Workloads+m.After
		if seed%2 == 1 {
			before, after = before+m.ClusterBefore, after+m.ClusterAfter
		}
		was, is := connect(t, program, before, m.Addressing), connect(t, program, after, m.Addressing)
		if !checkExplain(t, cluster(t, before, m.Addressing), was) {
			t.Fatalf("seed %d:\n%s", seed, before)
		}
		if !checkExplain(t, cluster(t, after, m.Addressing), is) {
			t.Fatalf("seed %d:\n%s", seed, after)
		}
		if !checkDifference(t, model.NewDifference(cluster(t, before, m.Addressing), cluster(t, after, m.Addressing)), was, is) {
			t.Fatalf("seed %d:\n%s\n=====\n%s", seed, before, m.After)
		}
		if !checkReplay(t, cluster(t, before, m.Addressing), cluster(t, after, m.Addressing), was, is) {
			t.Fatalf("seed %d:\n%s\n=====\n%s", seed, before, m.After)
		}
	}
}

func cluster(t *testing.T, text string, a model.Addressing) *model.Cluster {
	t.Helper()
	m := &model.Manifests{Namespace: "default", Addressing: a}
	if err := m.Read("drawn", strings.NewReader(text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return c
}

// connect the pods of manifests in a lab.
func connect(t *testing.T, program, text string, a model.Addressing) map[pair]cell {
	t.Helper()
	file := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"lab", "-f", file, "-o", "json", "--port", "80", "--port", "8080"}
	for _, p := range a.PodCIDRs {
		args = append(args, "--pod-cidr", p.String())
	}
	if a.IPv4 {
		args = append(args, "--ip-families", "IPv4")
	}
	if a.IPv6 {
		args = append(args, "--ip-families", "IPv6")
	}
	out, err := exec.Command(program, args...).Output()
	if err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			err = fmt.Errorf("%w: %s", err, failed.Stderr)
		}
		t.Fatalf("%v\n%s", err, text)
	}
	var result struct{ Cells []cell }
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	cells := map[pair]cell{}
	for _, c := range result.Cells {
		cells[pair{c.From, c.To, c.Port}] = c
	}
	return cells
}

// checkExplain compares what was measured between two workloads, or an address and a workload, with the flows of explain.
func checkExplain(t *testing.T, c *model.Cluster, cells map[pair]cell) bool {
	compared := 0
	for at, cell := range cells {
		to := at.to.Namespace + "/" + at.to.Name + fmt.Sprintf(":%d", at.port)
		if at.to.Kind == "Address" {
			to = netip.AddrPortFrom(netip.MustParseAddr(at.to.Name), at.port).String()
		}
		from := at.from.Namespace + "/" + at.from.Name
		if at.from.Kind == "Address" {
			from = at.from.Name
		}
		answer, err := explain.Ask(c, "default", from, to)
		if err != nil {
			t.Errorf("explain: %s → %s: %v; measured %s", from, to, err, cell.Measured)
			continue
		}
		verdicts := map[explain.Verdict]bool{}
		for _, f := range answer.Flows {
			if f.Always == "" { // a pod and itself, which the lab does not connect
				verdicts[f.Verdict] = true
			}
		}
		want := "partial"
		switch {
		case verdicts[explain.Depends]:
			if !cell.Assumed {
				t.Errorf("%s → %s: explain depends on an address, and the lab has no mark", from, to)
			}
			continue
		case len(verdicts) == 1 && verdicts[explain.Allowed]:
			want = "allowed"
		case len(verdicts) == 1:
			want = "denied"
		}
		if compared++; cell.Measured != want {
			t.Errorf("%s → %s: measured %s; explain: %s", from, to, cell.Measured, want)
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
	return !t.Failed()
}

// checkDifference compares the changes of what was measured with the pairs of diff.
func checkDifference(t *testing.T, d *model.Difference, was, is map[pair]cell) bool {
	for at, now := range is {
		before, ok := was[at]
		if !ok { // of an address that only one side names
			continue
		}
		gained, lost, depends := false, false, false
		for _, p := range d.Pairs {
			if covers(p, p.From, at.from) && covers(p, p.To, at.to) {
				gained, lost = gained || has(p.Gained, at.port), lost || has(p.Lost, at.port)
				depends = depends || p.Depends
			}
		}
		changed := before.Measured != now.Measured
		if !depends && (changed && !gained && !lost || !changed && gained != lost) {
			t.Errorf("%v → %v TCP %d: measured %s before and %s after; diff: gained %v, lost %v", at.from, at.to, at.port, before.Measured, now.Measured, gained, lost)
		}
	}
	return !t.Failed()
}

// covers reports whether an end of a pair is a workload or, as ranges of addresses, holds it.
func covers(p model.Pair, end, w model.Workload) bool {
	if end.Kind != "Address" || w.Kind != "Address" {
		return end == w
	}
	addr := netip.MustParseAddr(w.Name)
	return slices.ContainsFunc(p.Parts, func(part model.Part) bool { return !addr.Less(part.First) && !part.Last.Less(addr) })
}

func has(s model.PortSet, port uint16) bool {
	return slices.ContainsFunc(s.Ranges, func(r policy.PortRange) bool { return r.Protocol == policy.TCP && r.First <= port && port <= r.Last })
}
