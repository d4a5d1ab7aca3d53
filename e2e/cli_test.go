//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/agentapi"
)

// cli is the plugin, built once.
var cli = sync.OnceValues(func() (string, error) {
	program := filepath.Join(test.Repo, "dist", runtime.GOARCH, "kubectl-kidoban")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/kubectl-kidoban")
	cmd.Dir = test.Repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err := cluster.Output(cmd)
	return program, err
})

func kidobanCommand(t *testing.T, ctx context.Context, args ...string) *exec.Cmd {
	t.Helper()
	program, err := cli()
	if err != nil {
		t.Fatal(err)
	}
	return test.Outside(ctx, append([]string{program}, args...)...)
}

// kidoban runs the plugin as the cluster's administrator, and wants an exit code.
func kidoban(t *testing.T, code int, args ...string) string {
	t.Helper()
	cmd := kidobanCommand(t, t.Context(), args...)
	var out, failure bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failure
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("kubectl kidoban %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, &out, &failure)
	}
	return out.String() + failure.String()
}

func kidobanJSON(t *testing.T, code int, into any, args ...string) {
	t.Helper()
	out := kidoban(t, code, append(args, "-o", "json")...)
	if err := json.NewDecoder(strings.NewReader(out)).Decode(into); err != nil {
		t.Fatalf("kubectl kidoban %s: %v:\n%s", strings.Join(args, " "), err, out)
	}
}

func contains(t *testing.T, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in\n%s", w, out)
		}
	}
}

// TestCLI asks the plugin about the shop, under its policies, and holds what it says against real connections.
func TestCLI(t *testing.T) {
	createShopPolicies(t)
	tables := awaitInForce(t)
	frontend, database := pods(t, "frontend")[0], pods(t, "database")[0]
	flow := []string{"--from", "shop/" + frontend.Name, "--to", "shop/" + database.Name + ":5432"}

	t.Run("explain agrees with connections", func(t *testing.T) {
		checkExplained(t, some(tables[0].Probes, 8))
	})
	t.Run("explain agrees with connections to Services", func(t *testing.T) { checkExplained(t, some(tables[1].Probes, 4)) })
	t.Run("explain agrees with connections from outside", func(t *testing.T) { checkExplained(t, fromOutside(tables[0].Probes, 4)) })
	t.Run("explain agrees with connections, by names", func(t *testing.T) { checkExplainedByName(t, tables[0]) })
	t.Run("explain agrees with connections to NodePorts", func(t *testing.T) { checkExplainedNodePorts(t, tables[0]) })
	t.Run("explain --live", func(t *testing.T) {
		contains(t, kidoban(t, 1, append([]string{"explain", "--live"}, flow...)...), "DENIED", "shop/default-deny", "on node n", "the same")
	})
	t.Run("matrix agrees with connections", func(t *testing.T) { checkMatrix(t, tables[0]) })
	t.Run("matrix agrees with connections from and to outside", func(t *testing.T) { checkMatrixOutside(t, tables[0]) })
	t.Run("diff agrees with connections", func(t *testing.T) { checkDiff(t, tables[0]) })
	t.Run("diff with what is there", func(t *testing.T) {
		policies := filepath.Join(test.Repo, "examples", "shop", "policies")
		kidoban(t, 0, "diff", "-f", policies)
		file := filepath.Join(t.TempDir(), "open.yaml")
		if err := os.WriteFile(file, []byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open, namespace: shop}\n"+
			"spec: {podSelector: {matchLabels: {app.kubernetes.io/name: backend}}, ingress: [{from: [{namespaceSelector: {}}]}]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out := strings.Join(strings.Fields(kidoban(t, 1, "diff", "-f", file)), " ") // columns are as wide as what is in them
		contains(t, out, "+ NetworkPolicy shop/open", "monitoring/prometheus shop/backend all ports but TCP 9090")
	})
	t.Run("lint", func(t *testing.T) {
		create(t, ingressPolicy("for-nobody", "nobody"))
		contains(t, kidoban(t, 1, "lint"), "selects-nothing", "shop/for-nobody")
	})
	t.Run("report", func(t *testing.T) { checkReport(t) })
	t.Run("events", func(t *testing.T) { checkEvents(t, &frontend, &database) })
	t.Run("status", func(t *testing.T) {
		eventually(t, "all is in force", func(context.Context) error { return statusSays(t, true) })
		contains(t, kidoban(t, 0, "status"), "Agents: 2/2 nodes", "in force, slowest", "Denied in the last 10m:")
	})
	t.Run("a policy that arrives late", func(t *testing.T) { checkLatePolicy(t, flow) })
}

func createShopPolicies(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(test.Repo, "examples", "shop", "policies", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		_, policies := readPolicies(t, file)
		for _, p := range policies {
			p.SetNamespace("shop")
		}
		create(t, policies...)
	}
}

// some probes between pods, as many of either outcome.
func some(probes []matrix.Probe, each int) (out []matrix.Probe) {
	count := map[bool]int{}
	for i, p := range probes {
		// From all over the list, which is ordered by source.
		if i%7 == 0 && p.Source.Row != "outside" && count[p.Allowed] < each {
			count[p.Allowed]++
			out = append(out, p)
		}
	}
	return out
}

func addressLike(addresses []netip.Addr, like netip.Addr) string {
	for _, a := range addresses {
		if a.Is4() == like.Is4() {
			return a.String()
		}
	}
	return ""
}

// checkMatrix holds each cell against the connections between the pods of its workloads, and against those that the plugin makes.
func checkMatrix(t *testing.T, table *matrix.Table) {
	t.Helper()
	type workload struct{ Namespace, Kind, Name string }
	var m struct {
		Cells []struct {
			From, To          workload
			Protocol          string
			Port              int
			Verdict, Measured string
		}
	}
	kidobanJSON(t, 0, &m, "matrix", "-n", "shop", "-n", "monitoring", "--probe")
	cells, compared := map[string]string{}, 0
	for _, p := range table.Probes {
		key := fmt.Sprint(p.Source.Row, " > ", p.Endpoint.Column.Group, " ", p.Endpoint.Column.Port)
		verdict := "denied"
		if p.Result.Outcome == reach.Open {
			verdict = "allowed"
		}
		if cells[key] != "" && cells[key] != verdict {
			verdict = "partial"
		}
		cells[key] = verdict
	}
	probed := 0
	for _, c := range m.Cells {
		port := fmt.Sprint(c.Port)
		if c.Protocol != "TCP" {
			port += "/" + strings.ToLower(c.Protocol)
		}
		key := fmt.Sprint(c.From.Name, " > ", c.To.Name, " ", port)
		if want := cells[key]; want != "" {
			compared++
			if c.Verdict != want {
				t.Errorf("%s: matrix says %s, and connections %s", key, c.Verdict, want)
			}
		}
		if c.Measured != "" {
			probed++
			if c.Measured != c.Verdict {
				t.Errorf("%s: --probe says %s, and policies %s", key, c.Measured, c.Verdict)
			}
		}
	}
	t.Logf("%d cells, %d compared, %d probed", len(m.Cells), compared, probed)
	if compared < 10 || probed < 10 {
		t.Errorf("%d cells were compared and %d probed, of %d", compared, probed, len(m.Cells))
	}
}

func checkReport(t *testing.T) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.tar.gz")
	kidoban(t, 0, "report", "--file", file)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"kind: Secret", "managedFields", "last-applied-configuration", "NODE_NAME"} {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s has %q in it", header.Name, secret)
			}
		}
		if strings.HasSuffix(header.Name, "errors.txt") {
			t.Errorf("%s", text)
		}
	}
	for _, want := range []string{"version.txt", "cluster/networkpolicies.yaml", "cluster/policyendpointslices.yaml", "nodes/n1/pods.json", "nodes/n2/policies.json"} {
		if !slices.Contains(names, "kidoban-report/"+want) {
			t.Errorf("%s is not in the archive: %v", want, names)
		}
	}
}

// dial from a pod to another's port, once.
func dial(t *testing.T, from, to *corev1.Pod, port uint16) reach.Result {
	t.Helper()
	target, err := reach.ParseTarget("tcp/" + netip.AddrPortFrom(netip.MustParseAddr(to.Status.PodIP), port).String())
	if err != nil {
		t.Fatal(err)
	}
	results, err := test.Dial(t.Context(), from, []reach.Target{target}, probeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// checkEvents listens while a connection is refused.
func checkEvents(t *testing.T, from, to *corev1.Pod) {
	t.Helper()
	const port = 5431 // which is new: a flow of a kind that was seen has a line each interval only
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := kidobanCommand(t, ctx, "events", "-f", "--since=1s", "--verdict=DENY", "--pod", "shop/"+from.Name, "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan agentapi.StreamedEvent, 1000)
	go func() {
		defer close(seen)
		for lines := json.NewDecoder(out); ; {
			var e agentapi.StreamedEvent
			if lines.Decode(&e) != nil {
				return
			}
			seen <- e
		}
	}()
	if r := dial(t, from, to, port); r.Outcome != reach.TimedOut {
		t.Errorf("it is not refused: %+v", r)
	}
	found := false
	for !found {
		select {
		case e, ok := <-seen:
			if !ok {
				t.Fatal("the stream has ended")
			}
			found = e.Source.Pod == from.Name && e.Destination.Port == port && e.Reason == agentapi.ReasonDefaultDeny && len(e.IsolatedBy) > 0
		case <-t.Context().Done():
			t.Fatal("no event")
		}
	}
	cancel()
	for range seen { // until it has ended
	}
	_ = cmd.Wait()
	contains(t, kidoban(t, 0, "events", "--since=5m", "--verdict=DENY", "--policy=shop/default-deny"), fmt.Sprintf("%s:%d", to.Name, port), "DENY", "Egress")
}

// statusSays is nil where `status` finds all well, or not, as wanted.
func statusSays(t *testing.T, healthy bool) error {
	t.Helper()
	out, err := cluster.Output(kidobanCommand(t, t.Context(), "status"))
	var exit *exec.ExitError
	switch {
	case err == nil && healthy, errors.As(err, &exit) && exit.ExitCode() == 1 && !healthy:
		return nil
	}
	return fmt.Errorf("%v:\n%s", err, out)
}

// checkLatePolicy applies a policy while the controllers stand still. The plugin reports that nodes lack it, and waits until they have it.
func checkLatePolicy(t *testing.T, flow []string) {
	t.Helper()
	for _, c := range enginePods(t, "controller") {
		signalPod(t, &c, "STOP")
		t.Cleanup(func() { signalPod(t, &c, "CONT") })
	}
	create(t, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "late"}, Spec: networkingv1.NetworkPolicySpec{
		PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
	}})
	out := kidoban(t, 1, append([]string{"explain", "--live"}, flow...)...)
	contains(t, out, "≠ NetworkPolicy shop/late is not in force there yet")
	contains(t, kidoban(t, 1, "status", "policy", "shop/late"), "resolved Missing", "0/2 in force")
	contains(t, kidoban(t, 1, "status", "-n", "shop", "--wait", "--timeout=1s"), "not in force everywhere after 1s")

	waiting := kidobanCommand(t, t.Context(), "status", "policy", "shop/late", "--wait", "--timeout=2m")
	var printed bytes.Buffer
	waiting.Stdout, waiting.Stderr = &printed, &printed
	if err := waiting.Start(); err != nil {
		t.Fatal(err)
	}
	for _, c := range enginePods(t, "controller") {
		signalPod(t, &c, "CONT")
	}
	if err := waiting.Wait(); err != nil {
		t.Errorf("status --wait: %v", err)
	}
	contains(t, printed.String(), "resolved True", "2/2 in force")
	contains(t, kidoban(t, 1, append([]string{"explain", "--live"}, flow...)...), "the same")
	awaitEngine(t)
}

// TestAgentAPI asks an agent as the documentation says, on its node's loopback address.
func TestAgentAPI(t *testing.T) {
	agent := enginePods(t, "agent")[0]
	token := func(account string, flags ...string) string {
		out, err := cluster.Output(test.Kubectl(t.Context(), append([]string{"-n", engine.Namespace, "create", "token", account}, flags...)...))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	audience := "--audience=" + agentapi.Audience
	for name, tc := range map[string]struct{ token, want string }{
		"no token":                      {"", "401"},
		"garbage":                       {"garbage", "401"},
		"a token for the API server":    {token(agentapi.Viewer), "401"},
		"a token of another account":    {token("default", audience), "403"},
		"a token of the viewer, for it": {token(agentapi.Viewer, audience), "200"},
	} {
		for _, path := range []string{agentapi.PathNames, agentapi.PathNode, agentapi.PathPods, agentapi.PathPolicies, agentapi.PathEvents} {
			url := fmt.Sprintf("http://127.0.0.1:%d%s", agentapi.DefaultPort, path)
			status, err := cluster.Output(test.OnNode(t.Context(), agent.Spec.NodeName, "curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--header", "Authorization: Bearer "+tc.token, url))
			if err != nil || status != tc.want {
				t.Errorf("%s, %s: %s, want %s: %v", name, path, status, tc.want, err)
			}
		}
	}
	if out, err := cluster.Output(test.Outside(t.Context(), "curl", "--silent", "--max-time", "2", fmt.Sprintf("http://%s:%d/v1/pods", agent.Status.HostIP, agentapi.DefaultPort))); err == nil {
		t.Errorf("it is reached from outside its node: %s", out)
	}
}
