package cli_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/cli/drawn"
	"github.com/kidoban/kidoban/internal/cli/explain"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

func mustCluster(t *testing.T, manifests string, a model.Addressing) *model.Cluster {
	t.Helper()
	m := &model.Manifests{Namespace: "default", Addressing: a}
	err := m.Read("drawn", strings.NewReader(manifests))
	if err != nil {
		t.Fatalf("%v\n%s", err, manifests)
	}
	c, err := m.Cluster()
	if err == nil {
		err = c.InvalidPolicies()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, manifests)
	}
	return c
}

// oracle asks the reference evaluator about each address that a pod may have.
type oracle struct {
	*model.Cluster
	edges []netip.Addr // where a block of the policies begins, or has ended
	wide  bool         // pods whose addresses are not known may have public ones
	taken map[netip.Addr]bool
}

func newOracle(c *model.Cluster, all ...*model.Cluster) *oracle {
	o := &oracle{Cluster: c, taken: map[netip.Addr]bool{}}
	add := func(cidr string) {
		p := netip.MustParsePrefix(cidr).Masked()
		o.edges = append(o.edges, p.Addr())
		last := p.Addr().AsSlice()
		for i := p.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		if end, _ := netip.AddrFromSlice(last); end.Next().IsValid() {
			o.edges = append(o.edges, end.Next())
		}
	}
	for _, c := range all {
		for i := range c.Policies {
			for _, d := range policy.Directions {
				for _, r := range netpol.Rules(d, &c.Policies[i]) {
					for _, p := range r.Peers {
						if p.IPBlock != nil {
							add(p.IPBlock.CIDR)
							for _, e := range p.IPBlock.Except {
								add(e)
							}
						}
					}
				}
			}
		}
	}
	for _, c := range all {
		for i := range c.ClusterPolicies {
			for _, r := range c.ClusterPolicies[i].Spec.Egress {
				for _, p := range r.To {
					for _, n := range p.Networks {
						add(string(n))
					}
				}
			}
		}
	}
	for i := range c.Pods {
		if !c.Pods[i].Invented {
			for _, a := range policy.PodAddresses(&c.Pods[i].Pod) {
				o.taken[a] = true
			}
		}
	}
	return o
}

// addresses that stand for all that a pod may have of a family.
func (o *oracle) addresses(p *model.Pod, is4 bool) (out []netip.Addr) {
	if !p.Invented {
		return slices.DeleteFunc(policy.PodAddresses(&p.Pod), func(a netip.Addr) bool { return a.Is4() != is4 })
	}
	if is4 && !o.Addressing.IPv4 || !is4 && !o.Addressing.IPv6 {
		return nil
	}
	blocks := o.Addressing.PodCIDRs
	if o.wide && is4 && !slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Addr().Is4() }) {
		none := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3")}
		for _, first := range append([]netip.Addr{netip.MustParseAddr("1.0.0.0")}, o.edges...) {
			for _, a := range []netip.Addr{first, first.Next()} {
				if a.Is4() && !o.taken[a] && !slices.ContainsFunc(none, func(b netip.Prefix) bool { return b.Contains(a) }) {
					out = append(out, a)
				}
			}
		}
		return out
	}
	if !slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Addr().Is4() == is4 }) {
		for _, text := range []string{"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "2000::/3", "fc00::/7"} {
			blocks = append(slices.Clip(blocks), netip.MustParsePrefix(text))
		}
	}
	for _, b := range blocks {
		if b.Addr().Is4() != is4 {
			continue
		}
		for _, first := range append([]netip.Addr{b.Addr()}, o.edges...) {
			for _, a := range []netip.Addr{first, first.Next()} { // two, for two pods that are judged alike
				if b.Contains(a) && !o.taken[a] {
					out = append(out, a)
				}
			}
		}
	}
	return out
}

// allows yields the reference's answer for all addresses of two pods.
func (o *oracle) allows(from, to *model.Pod, is4 bool, port uint16, yield func(source, destination netip.Addr, allowed bool)) {
	at := func(p *model.Pod, a netip.Addr) corev1.Pod {
		out := p.Pod
		out.Status.PodIP, out.Status.PodIPs = a.String(), nil
		return out
	}
	for _, s := range o.addresses(from, is4) {
		for _, d := range o.addresses(to, is4) {
			if s == d {
				continue
			}
			c := &reference.Cluster{ClusterPolicies: o.ClusterPolicies, NetworkPolicies: reference.NetworkPolicies{
				Namespaces: o.Namespaces, Policies: o.Policies, Pods: []corev1.Pod{at(from, s), at(to, d)}}}
			yield(s, d, c.Allows(policy.Flow{Source: s, Destination: d, Protocol: policy.TCP, Port: port}))
		}
	}
}

// sum of verdicts.
type sum struct{ yes, no bool }

func (s *sum) add(allowed bool) { s.yes, s.no = s.yes || allowed, s.no || !allowed }

func (s sum) verdict() explain.Verdict {
	return map[sum]explain.Verdict{{yes: true}: explain.Allowed, {no: true}: explain.Denied, {true, true}: explain.Depends}[s]
}

// What explain, matrix and diff print of manifests is what the reference says for each address that the pods may have.
func TestCommandsAgreeWithEachOtherAndTheReference(t *testing.T) {
	for seed := range uint64(9) {
		m := drawn.New(seed)
		before, after, a := m.Workloads+m.Before, m.Workloads+m.After, m.Addressing
		if seed >= 4 { // the first have NetworkPolicies alone
			before, after = before+m.ClusterBefore, after+m.ClusterAfter
		}
		was, is := mustCluster(t, before, a), mustCluster(t, after, a)
		checkVerdicts(t, fmt.Sprintf("seed %d:\n%s", seed, after), is)
		checkDifference(t, fmt.Sprintf("seed %d:\n%s\n=====\n%s", seed, before, after), was, is)
	}
}

func checkVerdicts(t *testing.T, name string, c *model.Cluster) {
	t.Helper()
	o := newOracle(c, c)
	ports := []uint16{80, 8080}
	m := c.Matrix(model.MatrixOptions{Ports: []model.Port{{Protocol: policy.TCP, Number: 80}, {Protocol: policy.TCP, Number: 8080}}})
	wide := newOracle(c, c)
	wide.wide = true
	for i, row := range m.Rows {
		for j, column := range m.Columns {
			want := o.cell(row, column)
			if m.Cells[i][j] != want {
				t.Fatalf("%s\nmatrix: %v → %v: %v, want %v", name, row, column, m.Cells[i][j], want)
			}
			assumes := wide.cell(row, column) != want
			if got := m.AssumesPrivate != nil && m.AssumesPrivate[i][j]; got != assumes {
				t.Fatalf("%s\nmatrix: %v → %v assumes private addresses: %v, want %v", name, row, column, got, assumes)
			}
		}
	}
	for i := range c.Pods {
		for j := range c.Pods {
			for _, port := range ports {
				if i != j {
					checkExplain(t, name, o, &c.Pods[i], &c.Pods[j], port)
				}
			}
		}
	}
}

// cell of a matrix.
func (o *oracle) cell(row model.Workload, column model.Column) model.Verdict {
	var pods sum
	depends := false
	for _, is4 := range []bool{true, false} {
		if !is4 && o.AssumesIPv6(netip.IPv6Unspecified()) {
			continue
		}
		eachPair(o.Cluster, row, column.Workload, func(from, to *model.Pod) {
			var one sum
			o.allows(from, to, is4, column.Port.Number, func(_, _ netip.Addr, allowed bool) { one.add(allowed) })
			depends = depends || one == sum{true, true}
			if one != (sum{}) {
				pods.add(one.yes)
			}
		})
	}
	if depends {
		return model.Depends
	}
	return map[sum]model.Verdict{{}: model.NotAsked, {yes: true}: model.Allowed, {no: true}: model.Denied, {true, true}: model.Partial}[pods]
}

func eachPair(c *model.Cluster, from, to model.Workload, yield func(from, to *model.Pod)) {
	for i := range c.Pods {
		for j := range c.Pods {
			if i != j && c.Pods[i].Workload == from && c.Pods[j].Workload == to {
				yield(&c.Pods[i], &c.Pods[j])
			}
		}
	}
}

// checkExplain asks about two pods, and through the Service of the second.
func checkExplain(t *testing.T, name string, o *oracle, from, to *model.Pod, port uint16) {
	t.Helper()
	wanted := map[bool]explain.Verdict{}
	for _, is4 := range []bool{true, false} {
		if !is4 && o.AssumesIPv6(netip.IPv6Unspecified()) {
			continue
		}
		var one sum
		o.allows(from, to, is4, port, func(_, _ netip.Addr, allowed bool) { one.add(allowed) })
		if one != (sum{}) {
			wanted[is4] = one.verdict()
		}
	}
	answer, err := explain.Ask(o.Cluster, "default", from.Key(), fmt.Sprintf("%s:%d", to.Key(), port))
	if err != nil {
		if len(wanted) > 0 {
			t.Fatalf("%s\nexplain: %s → %s:%d: %v", name, from.Key(), to.Key(), port, err)
		}
		return
	}
	all := explain.Allowed
	for _, v := range wanted {
		if v == explain.Denied || v == explain.Depends && all == explain.Allowed {
			all = v
		}
	}
	if answer.Verdict != all {
		t.Fatalf("%s\nexplain: %s → %s:%d: %s, want %s", name, from.Key(), to.Key(), port, answer.Verdict, all)
	}
	for _, f := range answer.Flows { // families with the same explanation are one flow
		if want := wanted[f.Destination.Address.Is4()]; f.Verdict != want {
			t.Fatalf("%s\nexplain: %s → %s:%d: %s at %s, want %s", name, from.Key(), to.Key(), port, f.Verdict, f.Destination.Address, want)
		}
	}
	if port != 80 {
		return
	}
	through, err := explain.Ask(o.Cluster, "default", from.Key(), fmt.Sprintf("svc/%s/%s:8080", to.Namespace, to.Labels["app"]))
	if err != nil {
		t.Fatalf("%s\nexplain: %s → Service of %s: %v", name, from.Key(), to.Key(), err)
	}
	for _, f := range through.Flows {
		if want, ok := wanted[f.Destination.Address.Is4()]; ok && f.Destination.Pod == to.Name && f.Source.Pod == from.Name && f.Verdict != want {
			t.Fatalf("%s\nexplain: %s → Service of %s: %s, want %s", name, from.Key(), to.Key(), f.Verdict, want)
		}
	}
}

func checkDifference(t *testing.T, name string, before, after *model.Cluster) {
	t.Helper()
	was, is := newOracle(before, before, after), newOracle(after, before, after)
	pairs := map[[2]model.Workload]model.Pair{}
	d := model.NewDifference(before, after)
	for _, p := range d.Pairs {
		pairs[[2]model.Workload{p.From, p.To}] = p
	}
	wideWas, wideIs := newOracle(before, before, after), newOracle(after, before, after)
	wideWas.wide, wideIs.wide = true, true
	for _, from := range after.Workloads() {
		for _, to := range after.Workloads() {
			for _, port := range []uint16{80, 8080} {
				gained, lost := changes(was, is, from, to, port)
				p := pairs[[2]model.Workload{from, to}]
				if contains(p.Gained, port) != gained || contains(p.Lost, port) != lost {
					t.Fatalf("%s\ndiff: %v → %v TCP %d: gained %v, lost %v; %+v", name, from, to, port, gained, lost, p)
				}
				if port != 80 || p.AssumesPrivate || d.AssumesPrivate {
					continue
				}
				if more, less := changes(wideWas, wideIs, from, to, port); more != gained || less != lost {
					t.Fatalf("%s\ndiff: %v → %v TCP %d: no mark that addresses are assumed to be private; %+v", name, from, to, port, p)
				}
			}
		}
	}
}

// changes of a port between two workloads, by the reference.
func changes(was, is *oracle, from, to model.Workload, port uint16) (gained, lost bool) {
	type flow struct{ s, d netip.Addr }
	for _, is4 := range []bool{true, false} {
		if !is4 && is.AssumesIPv6(netip.IPv6Unspecified()) {
			continue
		}
		eachPair(is.Cluster, from, to, func(a, b *model.Pod) {
			old := map[flow]bool{}
			was.allows(a, b, is4, port, func(s, d netip.Addr, allowed bool) { old[flow{s, d}] = allowed })
			is.allows(a, b, is4, port, func(s, d netip.Addr, allowed bool) {
				gained, lost = gained || allowed && !old[flow{s, d}], lost || !allowed && old[flow{s, d}]
			})
		})
	}
	return gained, lost
}

func contains(s model.PortSet, port uint16) bool {
	return slices.ContainsFunc(s.Ranges, func(r policy.PortRange) bool {
		return r.Protocol == policy.TCP && r.First <= port && port <= r.Last
	})
}
