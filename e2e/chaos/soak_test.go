//go:build e2e

package chaos

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

// settleTime is how long nothing changes while something is measured: the collector of garbage runs, queues are empty, idle connections are closed.
const settleTime = 90 * time.Second

// TestSoak changes pods, policies and labels for MINUTES, under traffic, and compares what both halves hold afterwards with what they held before.
func TestSoak(t *testing.T) {
	minutes, err := strconv.Atoi(cmp.Or(os.Getenv("MINUTES"), "30"))
	must(t, err)
	// The first rounds fill caches and pools that stay.
	churn(t, time.Now().Add(min(time.Minute, time.Duration(minutes)*time.Minute/4)))
	before := measureAtRest(t)
	tr := startTraffic(t)
	var counted tally
	rounds := 0
	for end := time.Now().Add(time.Duration(minutes) * time.Minute); time.Now().Before(end); {
		rounds += churn(t, minTime(end, time.Now().Add(time.Minute)))
		counted.add(tr.take(t))
	}
	tr.stop(t)
	after := measureAtRest(t)

	r := row{name: "soak", promise: nothingWrong, tally: counted}
	r.check(t)
	checkLogs(t)
	var b strings.Builder
	fmt.Fprintf(&b, "%d minutes, %d rounds of change, %d connections of which %d passed and %d failed wrongly.\n\n| process | quantity | before | after | may grow by |\n|---|---|---:|---:|---:|\n",
		minutes, rounds, counted.connections, counted.passes, counted.drops)
	for i, a := range after {
		was := before[i]
		if a.process != was.process || a.quantity != was.quantity {
			t.Fatalf("%s %s was %s %s before: a process has gone", a.process, a.quantity, was.process, was.quantity)
		}
		grown := a.value - was.value
		if grown > a.tolerance(was.value) {
			t.Errorf("%s: %s has grown from %.0f to %.0f", a.process, a.quantity, was.value, a.value)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", a.process, a.quantity, a.show(was.value), a.show(a.value), a.show(a.tolerance(was.value)))
	}
	t.Logf("\n%s", b.String())
	if file := os.Getenv("CHAOS_REPORT"); file != "" && !t.Failed() {
		section := "soak"
		if os.Getenv("RACE") != "" {
			section = "soak with the race detector"
		}
		must(t, writeSection(file, section, b.String()))
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// churn makes rounds of changes until a moment, and takes back what it made.
func churn(t *testing.T, until time.Time) (rounds int) {
	t.Helper()
	ctx := t.Context()
	for ; time.Now().Before(until); rounds++ {
		var objects []client.Object
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("soak-%d", time.Now().UnixNano())}}
		objects = append(objects, ns)
		for i := range 10 {
			p := ingress(fmt.Sprintf("soak-%d", i), server, friend, tcp(9000+uint16(i)))
			p.Spec.Ingress[0].From = append(p.Spec.Ingress[0].From,
				networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("192.0.%d.0/24", rounds%250)}},
				networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"soak": strconv.Itoa(rounds % 7)}}})
			objects = append(objects, p)
		}
		for i, node := range nodes {
			objects = append(objects, servingPod(fmt.Sprintf("soak-%d", i), []string{server, friend, stranger}[(rounds+i)%3], node))
		}
		for _, o := range objects {
			must(t, api.Create(ctx, o))
		}
		for i := range 5 {
			patch := fmt.Sprintf(`{"metadata":{"labels":{"soak":"%d"}}}`, (rounds+i)%7)
			must(t, api.Patch(ctx, ns, client.RawPatch("application/merge-patch+json", []byte(patch))))
		}
		for i := range nodes {
			awaitPod(t, fmt.Sprintf("soak-%d", i))
		}
		// A connection that is cut when the policy goes, and one that is refused and logged.
		for _, node := range steady {
			dial(t, member(t, stranger, node), false, targets(member(t, server, node), "tcp", shutPort)...)
		}
		for _, o := range objects {
			must(t, client.IgnoreNotFound(api.Delete(ctx, o)))
		}
		eventually(t, "pods are gone", func(ctx context.Context) error {
			var list corev1.PodList
			if err := api.List(ctx, &list, client.InNamespace(namespace)); err != nil {
				return err
			}
			if n := len(list.Items); n > len(steady)*3 {
				return fmt.Errorf("%d pods", n)
			}
			return nil
		})
	}
	return rounds
}

// A sample is one quantity of one process.
type sample struct {
	process, quantity string
	value             float64
}

const mebibyte = 1 << 20

// tolerance is how much a quantity may grow. Memory is that of a runtime that keeps what it had at its peak for a while.
func (s sample) tolerance(before float64) float64 {
	switch s.quantity {
	case "resident memory":
		return max(24*mebibyte, before/3)
	case "heap in use":
		return max(12*mebibyte, before/3)
	case "goroutines":
		return 15 // requests that are under way, connections that are kept for the next
	case "file descriptors":
		return 10
	default:
		return 0
	}
}

func (s sample) show(value float64) string {
	if s.quantity == "resident memory" || s.quantity == "heap in use" {
		return fmt.Sprintf("%.1f MiB", value/mebibyte)
	}
	return fmt.Sprintf("%.0f", value)
}

// measureAtRest waits until nothing happens any more, and measures. Of memory it takes the least of a while: what is above is garbage.
func measureAtRest(t *testing.T) []sample {
	t.Helper()
	eventually(t, "namespaces are gone", func(ctx context.Context) error {
		var list corev1.NamespaceList
		if err := api.List(ctx, &list); err != nil {
			return err
		}
		for _, ns := range list.Items {
			if strings.HasPrefix(ns.Name, "soak-") {
				return fmt.Errorf("%s is %s", ns.Name, ns.Status.Phase)
			}
		}
		return nil
	})
	var least []sample
	for end := time.Now().Add(settleTime); time.Now().Before(end); {
		pause(t, 5*time.Second)
		now := measure(t)
		if least == nil {
			least = now
		}
		for i := range now {
			least[i].value = min(least[i].value, now[i].value)
		}
	}
	return least
}

func measure(t *testing.T) []sample {
	t.Helper()
	var out []sample
	for _, component := range []string{"agent", "controller"} {
		for _, pod := range engineNow(t, component) {
			port := map[string]int{"agent": 8162, "controller": 8080}[component]
			metrics, err := cluster.Output(test.Kubectl(t.Context(), "get", "--raw",
				fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy/metrics", engine.Namespace, pod.Name, port)))
			must(t, err)
			for _, m := range []struct{ metric, quantity string }{
				{"process_resident_memory_bytes", "resident memory"},
				{"go_memstats_heap_inuse_bytes", "heap in use"},
				{"go_goroutines", "goroutines"},
				{"process_open_fds", "file descriptors"},
			} {
				out = append(out, sample{pod.Name, m.quantity, sum(t, metrics, m.metric)})
			}
			if component == "agent" {
				out = append(out, sample{pod.Name, "entries of maps", entries(metrics)}, sample{pod.Name, "pins", pins(t, pod.Spec.NodeName)})
			}
		}
	}
	return out
}

// sum is a metric's value, over all its series.
func sum(t *testing.T, metrics, name string) float64 {
	t.Helper()
	total, found := 0.0, false
	for line := range strings.Lines(metrics) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			fields := strings.Fields(line)
			value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			must(t, err)
			total, found = total+value, true
		}
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return total
}

// entries are those of all maps that follow policies and pods. Those that follow traffic are bounded and forget on their own.
func entries(metrics string) float64 {
	total := 0.0
	for line := range strings.Lines(metrics) {
		for _, m := range []string{"pods", "addresses", "networks", "rows", "ports", "interfaces"} {
			if rest, ok := strings.CutPrefix(line, fmt.Sprintf("kidoban_agent_map_entries{map=%q}", m)); ok {
				value, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
				total += value
			}
		}
	}
	return total
}

func pins(t *testing.T, node string) float64 {
	t.Helper()
	listed := onNode(t, node, "find", filepath.Join("/sys/fs/bpf", "kidoban"), "-type", "f")
	return float64(len(strings.Fields(listed)))
}
