package pairing

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

var begin = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func pod(name, node string) *observerapi.End {
	return &observerapi.End{
		Namespace: "shop", Pod: name + "-0", UID: name, Node: node, Workload: &agentapi.Workload{Kind: "Deployment", Name: name},
		Labels: map[string]string{"app": name}, Address: netip.AddrFrom4([4]byte{10, 50, 1, byte(len(name))}),
	}
}

var (
	web, db, idle, dns = pod("web", "n1"), pod("database", "n2"), pod("idle", "n2"), pod("coredns", "n2")
	allowed            = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy}
	other              = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonDefaultAllow}
	denied             = &observerapi.Decision{Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny}
	wouldDeny          = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonDefaultDeny, Audited: observerapi.Denied, AuditedBy: []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "staged"}}}
	wouldAllow         = &observerapi.Decision{Verdict: observerapi.Denied, Reason: agentapi.ReasonPolicy, Audited: observerapi.Allowed, AuditedBy: wouldDeny.AuditedBy}
)

func report(offset time.Duration, direction store.Direction, source, destination *observerapi.End, port uint16, d *observerapi.Decision, connections uint64) store.Report {
	first := begin.Add(offset)
	return store.Report{
		Span: first.Truncate(store.Exact), Resolution: store.Exact, First: first, Last: first, Direction: direction, Source: source, Destination: destination,
		Protocol: "TCP", Port: port, Decision: d, Connections: connections, Bytes: connections * 60,
	}
}

func streamed(reports []store.Report, oldest bool) (flows []*observerapi.Flow) {
	reports = slices.Clone(reports)
	slices.SortStableFunc(reports, func(a, b store.Report) int {
		if oldest {
			return a.Span.Compare(b.Span)
		}
		return b.Span.Compare(a.Span)
	})
	s := NewStream(oldest, func(f *observerapi.Flow) bool {
		flows = append(flows, f)
		return true
	})
	for i := range reports {
		s.Add(&reports[i])
	}
	s.Close()
	return flows
}

func summed(reports []store.Report) []*observerapi.Flow {
	s := NewSum(store.Summary)
	for i := range reports {
		s.Add(&reports[i])
	}
	return s.Flows()
}

type row struct {
	Source, Destination string
	Verdict             observerapi.Verdict
	Sides               observerapi.Sides
	Egress, Ingress     string
	Connections         uint64
	Packets             uint64
	Bytes               uint64
	Reply               bool
}

func rows(flows []*observerapi.Flow) (out []row) {
	reason := func(d *observerapi.Decision) string {
		if d == nil {
			return ""
		}
		return d.Reason
	}
	for _, f := range flows {
		out = append(out, row{f.Source.Workload.Name, f.Destination.Workload.Name, f.Verdict, f.Sides, reason(f.Egress), reason(f.Ingress), f.Connections, f.Packets, f.Bytes, f.Reply})
	}
	return out
}

func TestFlows(t *testing.T) {
	reply := report(3*time.Minute, store.Egress, dns, web, 35528, wouldDeny, 1)
	reply.Continues, reply.Reply = true, true
	beside := func(r store.Report) store.Report {
		r.Beside = true
		return r
	}
	for _, tc := range []struct {
		name    string
		reports []store.Report
		want    []row
	}{
		{"both nodes, clocks apart", []store.Report{
			report(7*time.Second, store.Egress, web, db, 5432, allowed, 100), report(0, store.Ingress, web, db, 5432, allowed, 100),
		}, []row{{"web", "database", observerapi.Allowed, observerapi.Complete, "policy", "policy", 100, 100, 6000, false}}},
		{"over the end of a span", []store.Report{
			report(9*time.Second, store.Egress, web, db, 5432, allowed, 100),
			report(9*time.Second, store.Ingress, web, db, 5432, allowed, 60), report(10*time.Second, store.Ingress, web, db, 5432, allowed, 40),
		}, []row{{"web", "database", observerapi.Allowed, observerapi.Complete, "policy", "policy", 100, 100, 6000, false}}},
		{"denied by the destination", []store.Report{
			report(0, store.Egress, web, idle, 8080, allowed, 1), report(time.Millisecond, store.Ingress, web, idle, 8080, denied, 1),
		}, []row{{"web", "idle", observerapi.Denied, observerapi.Complete, "policy", "default-deny", 1, 1, 60, false}}},
		{"denied by the source", []store.Report{
			report(0, store.Egress, web, idle, 8080, denied, 3),
		}, []row{{"web", "idle", observerapi.Denied, observerapi.Complete, "default-deny", "", 3, 3, 180, false}}},
		{"one side only", []store.Report{
			report(0, store.Egress, web, db, 5432, allowed, 10),
		}, []row{{"web", "database", observerapi.Allowed, observerapi.OneSide, "policy", "", 10, 10, 600, false}}},
		{"the source's node did not report", []store.Report{
			report(0, store.Ingress, web, db, 5432, denied, 10),
		}, []row{{"web", "database", observerapi.Denied, observerapi.OneSide, "", "default-deny", 10, 10, 600, false}}},
		{"minutes apart", []store.Report{
			report(0, store.Egress, web, db, 5432, allowed, 1), report(2*time.Minute, store.Ingress, web, db, 5432, allowed, 1),
		}, []row{
			{"web", "database", observerapi.Allowed, observerapi.OneSide, "policy", "", 1, 1, 60, false},
			{"web", "database", observerapi.Allowed, observerapi.OneSide, "", "policy", 1, 1, 60, false},
		}},
		{"a late reply", []store.Report{reply}, []row{{"coredns", "web", observerapi.WouldBeDeny, observerapi.OneSide, "default-deny", "", 0, 1, 60, true}}},
		{"a policy changed in between", []store.Report{
			report(0, store.Egress, web, db, 5432, allowed, 10),
			report(0, store.Ingress, web, db, 5432, allowed, 4), report(2*time.Second, store.Ingress, web, db, 5432, denied, 6),
		}, []row{
			{"web", "database", observerapi.Allowed, observerapi.Complete, "policy", "policy", 4, 4, 240, false},
			{"web", "database", observerapi.Denied, observerapi.Complete, "policy", "default-deny", 6, 6, 360, false},
		}},
		{"would be denied by an audited policy", []store.Report{
			report(0, store.Egress, web, db, 5432, allowed, 10), report(0, store.Ingress, web, db, 5432, other, 10), beside(report(0, store.Ingress, web, db, 5432, wouldDeny, 4)),
		}, []row{
			{"web", "database", observerapi.Allowed, observerapi.Complete, "policy", "default-allow", 6, 6, 360, false},
			{"web", "database", observerapi.WouldBeDeny, observerapi.Complete, "policy", "default-allow", 4, 4, 240, false},
		}},
		{"would be allowed by an audited policy", []store.Report{
			report(0, store.Egress, web, db, 5432, denied, 10), beside(report(0, store.Egress, web, db, 5432, wouldAllow, 10)),
		}, []row{{"web", "database", observerapi.WouldBeAllow, observerapi.Complete, "default-deny", "", 10, 10, 600, false}}},
		{"a pod in audit mode", []store.Report{
			report(0, store.Egress, web, db, 5432, wouldDeny, 2), report(0, store.Ingress, web, db, 5432, allowed, 2),
		}, []row{{"web", "database", observerapi.WouldBeDeny, observerapi.Complete, "default-deny", "policy", 2, 2, 120, false}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			byText := cmpopts.SortSlices(func(a, b row) bool { return fmt.Sprint(a) < fmt.Sprint(b) })
			for _, oldest := range []bool{true, false} {
				if diff := cmp.Diff(tc.want, rows(streamed(tc.reports, oldest)), byText); diff != "" {
					t.Errorf("oldest first: %t (-want +got):\n%s", oldest, diff)
				}
			}
			if tc.name == "minutes apart" {
				return // a sum has no times
			}
			if diff := cmp.Diff(tc.want, rows(summed(tc.reports)), byText); diff != "" {
				t.Errorf("summed (-want +got):\n%s", diff)
			}
		})
	}
}

// The order of reports makes no difference, and each connection is in one flow, whichever nodes have reported it.
func TestTotals(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		var reports []store.Report
		var connections, bothSides uint64
		ends := []*observerapi.End{web, db, idle, dns}
		for at := time.Duration(0); at < 10*time.Minute; at += time.Duration(r.IntN(4000)) * time.Millisecond {
			source, destination := ends[r.IntN(len(ends))], ends[r.IntN(len(ends))]
			n := 1 + r.Uint64N(50)
			connections += n
			switch r.IntN(10) {
			case 0:
				reports = append(reports, report(at, store.Egress, source, destination, 80, denied, n))
				continue
			case 1: // one node has lost its report; there may be no other of the kind to match
				source = pod(fmt.Sprint("lonely", at), "n1")
				reports = append(reports, report(at, store.Direction(r.IntN(2)), source, destination, 80, allowed, n))
				continue
			}
			bothSides += n
			reports = append(reports, report(at, store.Egress, source, destination, 80, allowed, n))
			for n > 0 { // the other node's records begin and end at other times
				part := 1 + r.Uint64N(n)
				later := at + time.Duration(r.IntN(8000))*time.Millisecond
				reports = append(reports, report(later, store.Ingress, source, destination, 80, []*observerapi.Decision{allowed, denied}[r.IntN(2)], part))
				n -= part
			}
		}
		want := streamed(reports, true)
		shuffled := slices.Clone(reports)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if diff := cmp.Diff(want, streamed(shuffled, true), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("seed %d: in another order (-want +got):\n%.2000s", seed, diff)
		}
		for name, flows := range map[string][]*observerapi.Flow{"oldest": want, "newest": streamed(shuffled, false), "summed": summed(shuffled)} {
			var got, both uint64
			var before time.Time
			for _, f := range flows {
				got += f.Connections
				if f.Sides == observerapi.Complete && f.Ingress != nil {
					both += f.Connections
				}
				if !before.IsZero() && (name == "newest" && f.Last.After(before) || name == "oldest" && f.Last.Before(before)) {
					t.Errorf("seed %d, %s: a flow of %s comes after %s", seed, name, f.Last, before)
				}
				before = f.Last
			}
			if got != connections || both != bothSides {
				t.Errorf("seed %d, %s: %d connections of %d, %d of them with both sides, want %d", seed, name, got, connections, both, bothSides)
			}
		}
	}
}

// A reader that has enough gets no more.
func TestStreamEnds(t *testing.T) {
	n := 0
	s := NewStream(false, func(*observerapi.Flow) bool { n++; return n < 3 })
	for i := range 100 {
		r := report(-time.Duration(i)*time.Minute, store.Egress, web, db, 80, denied, 1)
		if !s.Add(&r) {
			break
		}
	}
	s.Close()
	if n != 3 {
		t.Errorf("%d flows", n)
	}
}
