package storetest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// World makes reports about pods of workloads, and addresses outside.
type World struct {
	Rand      *rand.Rand
	Pods      []*observerapi.End
	Outside   []*observerapi.End
	Decisions []*observerapi.Decision
}

// NewWorld returns a world with the same content for the same seed.
func NewWorld(seed uint64, namespaces, workloads, pods int) *World {
	w := &World{Rand: rand.New(rand.NewPCG(seed, seed))}
	for n := range namespaces {
		namespace := fmt.Sprint("ns-", n)
		for l := range workloads {
			name := fmt.Sprint("app-", l)
			for p := range pods {
				id := n*workloads*pods + l*pods + p
				w.Pods = append(w.Pods, &observerapi.End{
					Namespace: namespace, Pod: fmt.Sprint(name, "-", p), UID: fmt.Sprint("uid-", id), Node: fmt.Sprint("node-", id%7),
					Workload: &agentapi.Workload{Kind: "Deployment", Name: name},
					Labels:   map[string]string{"app": name}, NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace},
					NamedPorts: []observerapi.NamedPort{{Name: "http", Protocol: "TCP", Number: 8080}},
					Address:    netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)}),
				})
			}
		}
		policy := agentapi.PolicyRef{Kind: agentapi.KindNetworkPolicy, Namespace: namespace, Name: "allow"}
		w.Decisions = append(w.Decisions,
			&observerapi.Decision{Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "NetworkPolicy", Policy: &agentapi.RuleRef{PolicyRef: policy, Rules: []int32{1}}},
			&observerapi.Decision{Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy", IsolatedBy: []agentapi.PolicyRef{policy}})
	}
	for i := range 20 {
		w.Outside = append(w.Outside, &observerapi.End{Address: netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), DomainNames: []string{fmt.Sprint("host-", i, ".example.com")}})
	}
	return w
}

// Report returns a report with a first connection in a span of time.
func (w *World) Report(since time.Time, span time.Duration) store.Report {
	first := since.Add(time.Duration(w.Rand.Int64N(int64(span)))).Truncate(time.Millisecond)
	r := store.Report{
		First: first, Last: first.Add(time.Duration(w.Rand.IntN(5000)) * time.Millisecond),
		Direction: store.Direction(w.Rand.IntN(2)),
		Source:    w.Pods[w.Rand.IntN(len(w.Pods))], Destination: w.Pods[w.Rand.IntN(len(w.Pods))],
		Protocol: "TCP", Port: uint16(8080 + w.Rand.IntN(3)),
		Decision:    w.Decisions[w.Rand.IntN(len(w.Decisions))],
		Connections: 1 + w.Rand.Uint64N(100), Bytes: w.Rand.Uint64N(1 << 20),
		Continues: w.Rand.IntN(10) == 0, Beside: w.Rand.IntN(10) == 0,
	}
	r.Reply = r.Continues && w.Rand.IntN(2) == 0
	if w.Rand.IntN(5) == 0 {
		r.Destination, r.Direction = w.Outside[w.Rand.IntN(len(w.Outside))], store.Egress
	} else if r.Direction == store.Egress && w.Rand.IntN(2) == 0 {
		r.Service = r.Destination.Namespace + "/" + r.Destination.Workload.Name
	}
	return r
}

// Batches returns batches of seven nodes with reports in a span of time.
func (w *World) Batches(since time.Time, span time.Duration, batches, reports int) []store.Batch {
	out := make([]store.Batch, 0, batches)
	for i := range batches {
		b := store.Batch{Node: fmt.Sprint("node-", i%7), Generation: "g", Sequence: uint64(i/7 + 1), Received: since.Add(span)}
		for range reports {
			b.Reports = append(b.Reports, w.Report(since, span))
		}
		out = append(out, b)
	}
	return out
}
