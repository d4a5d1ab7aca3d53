package matrix

import (
	"net"
	"os/exec"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestTheShellProbeTellsOpenFromRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	datagrams, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = datagrams.Close() }()
	go func() {
		buf := make([]byte, 16)
		for {
			_, from, err := datagrams.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = datagrams.WriteTo([]byte("!"), from)
		}
	}()
	port := func(a net.Addr) string { _, p, _ := net.SplitHostPort(a.String()); return p }
	refused := port(closed.Addr())
	_ = closed.Close()
	const host = "127.0.0.1"
	out, err := exec.Command("sh", "-c", shellProbe, "sh", "tcp", host, port(l.Addr()), "tcp", host, refused, "udp", host, port(datagrams.LocalAddr())).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := readShell(out, 3)
	if err != nil || !slices.Equal(got, []outcome{answered, answered, answered}) {
		t.Errorf("%v, %v of\n%s", got, err, out)
	}
}

func TestWhatProbesPrint(t *testing.T) {
	if got, err := readShell([]byte("1 silent\n0 open\n2 unknown\n"), 3); err != nil || !slices.Equal(got, []outcome{answered, silent, unknown}) {
		t.Errorf("%v, %v", got, err)
	}
	for name, text := range map[string]string{"nothing to connect with": "no-tool\n", "a line too few": "0 open\n", "garbage": "sh: syntax error\n", "a word": "0 open\n1 perhaps\n"} {
		if got, err := readShell([]byte(text), 2); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := readProbe([]byte(`{"outcome":"open"}{"outcome":"timed out"}{"outcome":"refused"}`), 3); err != nil || !slices.Equal(got, []outcome{answered, silent, answered}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestSilenceOfDatagramsSaysNothingWhereTheyMayPass(t *testing.T) {
	for _, tc := range []struct {
		protocol policy.Protocol
		meant    model.Verdict
		outcome  outcome
		want     model.Verdict
	}{
		{policy.TCP, model.Allowed, silent, model.Denied},
		{policy.TCP, model.Denied, answered, model.Allowed},
		{policy.UDP, model.Allowed, silent, model.NotAsked},
		{policy.UDP, model.Allowed, answered, model.Allowed},
		{policy.UDP, model.Denied, silent, model.Denied},
		{policy.UDP, model.Denied, answered, model.Allowed},
		{policy.SCTP, model.Allowed, unknown, model.NotAsked},
	} {
		table := &Table{Matrix: &model.Matrix{Cells: [][]model.Verdict{{tc.meant}}}, Measured: [][]model.Verdict{{model.NotAsked}}}
		table.record(target{protocol: tc.protocol, meant: tc.meant == model.Allowed}, tc.outcome)
		if got := table.Measured[0][0]; got != tc.want {
			t.Errorf("%s %s, outcome %d: %s, want %s", tc.protocol, tc.meant, tc.outcome, got, tc.want)
		}
	}
}

// In a cell of pods that are judged differently silence says of one pod what it does not say of another.
func TestCellsOfPodsThatAreJudgedDifferently(t *testing.T) {
	allowed, refused := target{protocol: policy.UDP, meant: true}, target{protocol: policy.UDP}
	type result struct {
		of target
		outcome
	}
	for name, tc := range map[string]struct {
		results []result
		want    model.Verdict
		wrong   int
	}{
		"as is meant":                          {[]result{{allowed, answered}, {refused, silent}}, model.Partial, 0},
		"the server does not answer":           {[]result{{allowed, silent}, {refused, silent}}, model.NotAsked, 0},
		"nothing to connect with":              {[]result{{allowed, answered}, {refused, unknown}}, model.NotAsked, 0},
		"the refused one comes through":        {[]result{{allowed, answered}, {refused, answered}}, model.Allowed, 1},
		"it does, and the server is not known": {[]result{{allowed, silent}, {refused, answered}}, model.Allowed, 1},
	} {
		table := &Table{Matrix: &model.Matrix{Cells: [][]model.Verdict{{model.Partial}}}, Measured: [][]model.Verdict{{model.NotAsked}}}
		for _, r := range tc.results {
			table.record(r.of, r.outcome)
		}
		table.mergeOutcomes()
		if wrong, _ := table.Wrong(); table.Measured[0][0] != tc.want || wrong != tc.wrong {
			t.Errorf("%s: %s, want %s; %d wrong, want %d", name, table.Measured[0][0], tc.want, wrong, tc.wrong)
		}
	}
}
