//go:build e2e && recorded

package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

// awaitFlows polls the flows since a time until check returns no error.
func (o *observer) awaitFlows(t *testing.T, since string, check func([]observerapi.Flow) error) {
	t.Helper()
	eventually(t, "the observer has the flows", func(ctx context.Context) error {
		var list observerapi.FlowList
		if err := o.get(ctx, observerapi.PathFlows, url.Values{"since": {since}, "limit": {"50000"}}, &list); err != nil {
			return err
		}
		return check(list.Flows)
	})
}

// bothSides returns an error if the node of one end has not reported flows of a key, or of any if it is empty.
func bothSides(flows []observerapi.Flow, key string) error {
	for i := range flows {
		if f := &flows[i]; f.Connections > 0 && f.Sides == observerapi.OneSide && (key == "" || flowKey(f) == key) {
			return fmt.Errorf("%s: one end is not reported", flowKey(f))
		}
	}
	return nil
}

// awaitConnections waits until this many connections of a key with a verdict are recorded.
func (o *observer) awaitConnections(t *testing.T, since, key string, verdict observerapi.Verdict, n uint64) {
	t.Helper()
	of := key + " " + string(verdict)
	o.awaitFlows(t, since, func(flows []observerapi.Flow) error {
		if seen := connectionsOf(flows); seen[of] < n {
			return fmt.Errorf("%d connections of %q, want %d, of %v", seen[of], of, n, seen)
		}
		return bothSides(flows, key)
	})
}

// connectionsOf flows by their key and verdict.
func connectionsOf(flows []observerapi.Flow) map[string]uint64 {
	out := map[string]uint64{}
	for i := range flows {
		f := &flows[i]
		out[flowKey(f)+" "+string(f.Verdict)] += f.Connections
	}
	return out
}

// A key names connections as "shop/frontend > shop/database TCP 5432". An end outside the cluster has its address.
func key(from, to, protocol string, port uint16) string {
	return fmt.Sprintf("%s > %s %s %d", from, to, protocol, port)
}

func endName(p replay.Party, address netip.Addr) string {
	if p.Kind == replay.KindOutside {
		return address.String()
	}
	return p.String()
}

func flowKey(f *observerapi.Flow) string {
	return key(endName(replay.PartyOf(&f.Source), f.Source.Address), endName(replay.PartyOf(&f.Destination), f.Destination.Address), f.Protocol, f.Port)
}

// keyOf a probe: one to a Service is to the pods behind it.
func keyOf(p *matrix.Probe) string {
	namespaces := map[string]string{"frontend": "shop", "backend": "shop", "database": "shop", "prometheus": "monitoring", "kube-dns": "kube-system"}
	name := func(workload, address string) string {
		if ns := namespaces[workload]; ns != "" {
			return ns + "/" + workload
		}
		return address
	}
	target := p.Endpoint.Target
	to := p.Endpoint.Backends[0]
	return key(name(p.Source.Row, addressLike(p.Source.Addresses, target.Address.Addr())), name(p.Endpoint.Column.Group, to.Addr().String()),
		strings.ToUpper(target.Protocol), to.Port())
}

// deniedBy the changed policies of a report, by key.
func deniedBy(t *testing.T, r *replay.Report) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for i := range r.Changes {
		c := &r.Changes[i]
		if c.Before != replay.Allowed || c.After != replay.Denied {
			t.Errorf("%s would be %s: %+v", c.Before, c.After, c)
		}
		if c.AddressNumber != len(c.Addresses) {
			t.Errorf("%d addresses, of which only %v are listed", c.AddressNumber, c.Addresses)
		}
		for _, a := range append(c.Addresses, netip.Addr{})[:max(1, len(c.Addresses))] {
			out[key(endName(c.From, a), endName(c.To, a), c.Protocol, c.Port)] = true
		}
	}
	return out
}

// wantDenied checks that a report has these changes and nothing that is unknown, unless it has no changes.
func wantDenied(t *testing.T, r *replay.Report, want ...string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(deniedBy(t, r))); !slices.Equal(got, want) || len(want) > 0 && len(r.Unknown) > 0 {
		t.Errorf("replay denies %q, want %q; unknown %+v", got, want, r.Unknown)
	}
}

// recordedFlow is what hack/oracle prints of one.
type recordedFlow struct {
	From, To            replay.Party
	Source, Destination netip.Addr
	Protocol            string
	Port                uint16
	Connections         uint64
	Verdict             observerapi.Verdict
	Allowed             bool
	Lacks               string
}

func (r *recordedFlow) key() string {
	return key(endName(r.From, r.Source), endName(r.To, r.Destination), r.Protocol, r.Port)
}

// isOf reports whether one end is in a namespace.
func (r *recordedFlow) isOf(namespace string) bool {
	return r.From.Namespace == namespace || r.To.Namespace == namespace
}

// judgeRecorded asks the evaluators of kube-network-policies about the flows of a recording under policies of the shop.
func judgeRecorded(t *testing.T, recording string, policies ...string) (out []recordedFlow) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "recorded")
	build := goBuild(t.Context(), filepath.Join("hack", "oracle"), program, "./cmd/recorded")
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	text, err := cluster.Output(test.Outside(t.Context(), append([]string{program, "--namespace=shop", "--flows=" + recording}, policies...)...))
	if err != nil {
		t.Fatal(err)
	}
	denied := 0
	for lines := json.NewDecoder(strings.NewReader(text)); lines.More(); {
		var is recordedFlow
		if err := lines.Decode(&is); err != nil {
			t.Fatal(err)
		}
		if !is.Allowed && is.Lacks == "" {
			denied++
		}
		out = append(out, is)
	}
	if t.Logf("kube-network-policies denies %d of %d flows", denied, len(out)); denied == 0 || denied == len(out) {
		t.Errorf("kube-network-policies denies %d of %d flows", denied, len(out))
	}
	slices.SortFunc(out, func(a, b recordedFlow) int { return cmp.Compare(a.key(), b.key()) })
	return out
}
