//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// checkExplained runs explain for the addresses of probes and compares its verdict with what the connections got.
func checkExplained(t *testing.T, probes []matrix.Probe) {
	t.Helper()
	if len(probes) < 6 {
		t.Fatalf("only %d connections are compared", len(probes))
	}
	for _, p := range probes {
		target := p.Endpoint.Target
		code := 1
		if p.Result.Outcome == reach.Open {
			code = 0
		}
		var answer struct{ Allowed bool }
		kidobanJSON(t, code, &answer, "explain", "--from", addressLike(p.Source.Addresses, target.Address.Addr()), "--to", target.Address.String()+"/"+target.Protocol)
		if answer.Allowed != (code == 0) {
			t.Errorf("%s: explain says %t", p.String(), answer.Allowed)
		}
	}
}

// fromOutside are some probes from outside the pods, as many of either outcome.
func fromOutside(probes []matrix.Probe, each int) (out []matrix.Probe) {
	count := map[bool]int{}
	for _, p := range probes {
		if p.Source.Row == "outside" && count[p.Allowed] < each {
			count[p.Allowed]++
			out = append(out, p)
		}
	}
	return out
}

// byWorkload is how the connections of each pair of workloads went, by "frontend > backend TCP 8000": allowed, denied, or partial.
func byWorkload(table *matrix.Table) map[string]string {
	out := map[string]string{}
	for _, p := range table.Probes {
		port, udp := strings.CutSuffix(p.Endpoint.Column.Port, "/udp")
		protocol := "TCP"
		if udp {
			protocol = "UDP"
		}
		verdict := "denied"
		if p.Result.Outcome == reach.Open {
			verdict = "allowed"
		}
		key := fmt.Sprintf("%s > %s %s %s", p.Source.Row, p.Endpoint.Column.Group, protocol, port)
		if out[key] != "" && out[key] != verdict {
			verdict = "partial"
		}
		out[key] = verdict
	}
	return out
}

// checkExplainedByName runs explain for names of workloads and of Services, as people do.
func checkExplainedByName(t *testing.T, table *matrix.Table) {
	t.Helper()
	measured := byWorkload(table)
	for _, c := range []struct{ from, to, key string }{
		{"shop/frontend", "shop/backend:8000", "frontend > backend TCP 8000"},
		{"shop/frontend", "svc/shop/backend:80", "frontend > backend TCP 8000"},
		{"shop/frontend", "svc/shop/database:postgres", "frontend > database TCP 5432"},
		{"shop/backend", "shop/database:5440", "backend > database TCP 5440"},
		{"monitoring/prometheus", "svc/shop/database:metrics", "prometheus > database TCP 9187"},
	} {
		code, ok := map[string]int{"allowed": 0, "denied": 1}[measured[c.key]]
		if !ok {
			t.Errorf("%s: connections are %q", c.key, measured[c.key])
			continue
		}
		kidoban(t, code, "explain", "--from", c.from, "--to", c.to)
	}
}

// checkExplainedNodePorts calls two workloads from outside by ports of a node that has pods of both.
func checkExplainedNodePorts(t *testing.T, table *matrix.Table) {
	t.Helper()
	measured := byWorkload(table)
	for i, c := range []struct{ workload, key string }{{"frontend", "outside > frontend TCP 8080"}, {"backend", "outside > backend TCP 8000"}} {
		service := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "node-port-" + c.workload},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeNodePort, Selector: workload(c.workload).MatchLabels, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal,
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http"), NodePort: int32(30090 + i)}},
			},
		}
		create(t, service)
		target := netip.AddrPortFrom(netip.MustParseAddr(pods(t, c.workload)[0].Status.HostIP), uint16(30090+i))
		code, want := 1, reach.TimedOut
		if measured[c.key] == "allowed" {
			code, want = 0, reach.Open
		}
		kidoban(t, code, "explain", "--from", "172.30.0.10", "--to", target.String())
		eventually(t, "the NodePort answers as policies say", func(ctx context.Context) error {
			results, err := test.DialOutside(ctx, build.Probe, []reach.Target{{Protocol: "tcp", Address: target}}, probeTimeout)
			if err == nil && results[0].Outcome != want {
				err = fmt.Errorf("%s: %s", c.key, results[0].Outcome)
			}
			return err
		})
	}
}

// checkMatrixOutside holds the cells of addresses outside the cluster against connections from and to these.
func checkMatrixOutside(t *testing.T, table *matrix.Table) {
	t.Helper()
	rows := map[string]string{"172.30.0.10": "outside", "203.0.113.10": "partner", "203.0.113.200": "partner test"}
	var m struct {
		Cells []struct {
			From, To struct{ Namespace, Name string }
			Protocol string
			Port     int
			Verdict  string
		}
	}
	args := []string{"matrix", "-n", "shop", "-n", "monitoring", "--port=443", "--port=8443"}
	for address := range rows {
		args = append(args, "--outside="+address)
	}
	kidobanJSON(t, 0, &m, args...)
	ipv4 := &matrix.Table{}
	for _, p := range table.Probes {
		if p.Endpoint.Target.Address.Addr().Is4() {
			ipv4.Probes = append(ipv4.Probes, p)
		}
	}
	measured, compared := byWorkload(ipv4), 0
	name := func(n string) string {
		if row, ok := rows[n]; ok {
			return row
		}
		return n
	}
	for _, c := range m.Cells {
		if rows[c.From.Name] == "" && rows[c.To.Name] == "" {
			continue
		}
		key := fmt.Sprintf("%s > %s %s %d", name(c.From.Name), name(c.To.Name), c.Protocol, c.Port)
		if want := measured[key]; want != "" {
			compared++
			if c.Verdict != want {
				t.Errorf("%s: matrix says %s, and connections %s", key, c.Verdict, want)
			}
		}
	}
	if compared < 10 {
		t.Errorf("%d cells of addresses outside the cluster were compared, of %d", compared, len(m.Cells))
	}
}

// checkDiff applies what diff was asked about, and compares the ports that pairs of workloads gain with the connections that go otherwise
// than before.
func checkDiff(t *testing.T, before *matrix.Table) {
	t.Helper()
	policy := ingressPolicy("database-for-frontend", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("frontend")})
	policy.Spec.Ingress[0].Ports = tcp(5432)
	egress := policy.DeepCopy()
	egress.Name = "frontend-to-database"
	egress.Spec = networkingv1.NetworkPolicySpec{
		PodSelector: *workload("frontend"),
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		Egress:      []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{{PodSelector: workload("database")}}, Ports: tcp(5432)}},
	}
	dir := t.TempDir()
	for _, p := range []*networkingv1.NetworkPolicy{policy, egress} {
		p.APIVersion, p.Kind = "networking.k8s.io/v1", "NetworkPolicy"
		content, err := yaml.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p.Name+".yaml"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var d struct {
		Added []string
		Pairs []struct {
			From, To     struct{ Name string }
			Gained, Lost string
		}
	}
	kidobanJSON(t, 1, &d, "diff", "-f", dir)
	var answer []string
	for _, pair := range d.Pairs {
		if pair.Lost != "no port" {
			t.Errorf("diff says that %s loses %s to %s", pair.From.Name, pair.Lost, pair.To.Name)
		}
		answer = append(answer, fmt.Sprintf("%s > %s %s", pair.From.Name, pair.To.Name, pair.Gained))
	}
	create(t, policy, egress)
	was, is := byWorkload(before), byWorkload(awaitInForce(t)[0])
	var changed []string
	for key, verdict := range is {
		if was[key] != verdict {
			changed = append(changed, key)
		}
	}
	slices.Sort(answer)
	slices.Sort(changed)
	if len(changed) == 0 || !slices.Equal(answer, changed) {
		t.Errorf("diff says %q, and the connections that have changed are %q", answer, changed)
	}
}
