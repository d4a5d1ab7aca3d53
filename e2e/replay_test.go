//go:build e2e && recorded

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

// TestReplayAndRecommend records the shop's connections with an observer, and compares what replay says of other policies, and what recommended
// policies are to allow, with connections under these policies.
func TestReplayAndRecommend(t *testing.T) {
	tables := awaitInForce(t) // before anything is recorded
	installObserver(t)
	t.Run("verify a migration", func(t *testing.T) { verifyMigration(t, tables) })
	t.Run("replay says what happens", replayComesTrue)
	t.Run("a workload with other labels since", replayRelabelled)
	t.Run("a pod that is gone", replayGone)
	t.Run("a pod that the observer never saw", replayUnseen)
	t.Run("an agent that was away", replayGap)
}

// replayComesTrue records connections from everywhere to everywhere, replays the shop's policies, and applies them.
func replayComesTrue(t *testing.T) {
	o := connectToObserver(t)
	since := pause(t)
	tables := awaitInForce(t)
	want := map[string]bool{}
	for _, table := range tables {
		for i := range table.Probes {
			// Connections without a pod, and those of a pod to itself, are not recorded.
			p := &table.Probes[i]
			if key := keyOf(p); strings.Contains(key, "/") && !slices.Contains(p.Source.Addresses, p.Endpoint.Backends[0].Addr()) {
				want[key] = true
			}
		}
	}
	o.awaitFlows(t, since, func(flows []observerapi.Flow) error {
		seen := connectionsOf(flows)
		for key := range want {
			if seen[key+" Allowed"] == 0 {
				return fmt.Errorf("%s is not recorded", key)
			}
		}
		return bothSides(flows, "")
	})
	file := filepath.Join(t.TempDir(), "flows.jsonl")
	kidoban(t, 0, "replay", "--since", since, "--record", file)
	policies := filepath.Join("examples", "shop", "policies")
	var live, recorded replay.Report
	kidobanJSON(t, 1, &live, "replay", "--since", since, "-f", policies, "-n", "shop")
	kidobanJSON(t, 1, &recorded, "replay", "--flows", file, "-f", policies, "-n", "shop")
	if !reflect.DeepEqual(live.Changes, recorded.Changes) {
		t.Errorf("the observer's flows change by %+v, and those of the file by %+v", live.Changes, recorded.Changes)
	}
	for _, r := range []*replay.Report{&live, &recorded} {
		if !r.Complete || len(r.Unknown) > 0 {
			t.Errorf("coverage %+v, unknown %+v", r.Coverage, r.Unknown)
		}
	}
	denied := deniedBy(t, &recorded)

	var files []string
	for _, name := range []string{"default-deny", "allow-dns", "allow-metrics", "frontend", "backend", "database"} {
		files = append(files, filepath.Join(policies, name+".yaml"))
	}
	for _, is := range judgeRecorded(t, file, files...) {
		switch key := is.key(); {
		case is.Lacks != "" || !is.isOf("shop"):
		case is.Source == is.Destination:
			if !is.Allowed {
				t.Errorf("%s: kube-network-policies denies a pod itself", key)
			}
		case is.Allowed == denied[key]:
			t.Errorf("%s: kube-network-policies allows it: %t; replay denies it: %t", key, is.Allowed, denied[key])
		}
	}

	createShopPolicies(t)
	outcomes := map[reach.Outcome]int{}
	for _, table := range awaitInForce(t) {
		for i := range table.Probes {
			p := &table.Probes[i]
			outcomes[p.Result.Outcome]++
			if (p.Result.Outcome == reach.Open) == denied[keyOf(p)] {
				t.Errorf("replay denies it: %t; %s", denied[keyOf(p)], p.String())
			}
			delete(want, keyOf(p))
		}
	}
	if outcomes[reach.Open] < 20 || outcomes[reach.TimedOut] < 20 || len(want) > 0 {
		t.Errorf("outcomes %v; not tried again: %v", outcomes, slices.Sorted(maps.Keys(want)))
	}
}

// replayRelabelled takes a label away from a pod after its connections. They are judged with the label.
func replayRelabelled(t *testing.T) {
	o := connectToObserver(t)
	frontend, backend, database := pods(t, "frontend")[0], pods(t, "backend")[0], pods(t, "database")[0]
	relabel(t, &frontend, "role", "admin")
	since := pause(t)
	const port = 5440
	for _, from := range []*corev1.Pod{&frontend, &frontend, &backend, &backend} {
		wantDial(t, from, &database, port, reach.Open)
	}
	o.awaitConnections(t, since, "shop/frontend > shop/database TCP 5440", observerapi.Allowed, 2)
	o.awaitConnections(t, since, "shop/backend > shop/database TCP 5440", observerapi.Allowed, 2)
	kubectl(t, "-n", "shop", "label", "pod", frontend.Name, "role-")
	admins := ingressPolicy("admins", "database", networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "admin"}}})
	var report replay.Report
	kidobanJSON(t, 1, &report, "replay", "--since", since, "-f", policyFile(t, admins))
	wantDenied(t, &report, "shop/backend > shop/database TCP 5440")
	contains(t, kidoban(t, 0, "recommend", "-n", "shop", "--since", since), "had other labels when they were recorded", "shop/frontend")
	create(t, admins)
	kidoban(t, 0, "status", "policy", "shop/admins", "--wait")
	wantDial(t, &frontend, &database, port, reach.TimedOut) // without the label
}

// replayGone deletes a pod after its connections.
func replayGone(t *testing.T) {
	o := connectToObserver(t)
	database := pods(t, "database")[0]
	since := pause(t)
	visit(t, "visitor", &database)
	o.awaitConnections(t, since, "shop/visitor > shop/database TCP 5432", observerapi.Allowed, 2)
	var report replay.Report
	backend := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")})
	kidobanJSON(t, 1, &report, "replay", "--since", since, "-f", policyFile(t, backend))
	wantDenied(t, &report, "shop/visitor > shop/database TCP 5432")
	visitors := ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("visitor")})
	kidobanJSON(t, 0, &report, "replay", "--since", since, "-f", policyFile(t, visitors))
	contains(t, kidoban(t, 0, "recommend", "-n", "shop", "--since", since), "do not exist any more, so they get no policy: shop/visitor")
}

// replayUnseen runs a pod while there is no observer. The next one receives its connections from the agents, and has no labels for it.
func replayUnseen(t *testing.T) {
	database := pods(t, "database")[0]
	since := pause(t)
	scaleObserver(t, "0")
	address := visit(t, "stranger", &database)
	scaleObserver(t, "1")
	connectToObserver(t).awaitFlows(t, since, func(flows []observerapi.Flow) error {
		reported := map[string]bool{} // by the node of either end
		for i := range flows {
			if s := &flows[i].Source; s.Address == address {
				reported[s.Pod] = true
			}
		}
		if !reported["stranger"] || !reported[""] {
			return fmt.Errorf("not reported by both ends' nodes: %v", reported)
		}
		return nil
	})
	backend := policyFile(t, ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}))
	var report replay.Report
	kidobanJSON(t, 2, &report, "replay", "--since", since, "-f", backend)
	wantDenied(t, &report)
	unknown := map[replay.Reason]uint64{}
	for _, u := range report.Unknown {
		unknown[u.Reason] = u.Connections
	}
	if want := map[replay.Reason]uint64{replay.ReasonLabels: 2, replay.ReasonPod: 2}; !maps.Equal(unknown, want) || report.Complete {
		t.Errorf("unknown: %v, want %v; complete: %t", unknown, want, report.Complete)
	}
	contains(t, kidoban(t, 2, "replay", "--since", since, "-f", backend), "incomplete", "the observer has all flows since", string(replay.ReasonLabels), string(replay.ReasonPod))
	contains(t, kidoban(t, 0, "recommend", "-n", "shop", "--since", since), "incomplete", "cannot be decided", "There is no policy to recommend")
}

// replayGap kills an agent. What replay and recommend print is never called complete.
func replayGap(t *testing.T) {
	o := connectToObserver(t)
	frontend, database := pods(t, "frontend")[0], pods(t, "database")[0]
	since := pause(t)
	agent := enginePods(t, "agent")[:1]
	kill(t, agent)
	node := agent[0].Spec.NodeName
	wantDial(t, &frontend, &database, 5432, reach.Open)
	wantDial(t, &frontend, &database, 5432, reach.Open)
	o.awaitConnections(t, since, "shop/frontend > shop/database TCP 5432", observerapi.Allowed, 2)
	backend := policyFile(t, ingressPolicy("database", "database", networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}))
	var report replay.Report
	eventually(t, "the loss is reported", func(context.Context) error {
		report = replay.Report{}
		kidobanJSON(t, 1, &report, "replay", "--since", since, "-f", backend)
		if report.Complete || !slices.ContainsFunc(report.Coverage.Losses, func(l observerapi.Loss) bool { return l.Node == node && l.Reason == "restart" }) {
			return fmt.Errorf("complete: %t, losses: %+v", report.Complete, report.Coverage.Losses)
		}
		return nil
	})
	wantDenied(t, &report, "shop/frontend > shop/database TCP 5432")
	lost := "node " + node + " lost an unknown number of connections"
	contains(t, kidoban(t, 2, "recommend", "-n", "shop", "--since", since, "--require-complete"), "the recording is incomplete", lost)
	contains(t, kidoban(t, 0, "recommend", "-n", "shop", "--since", since), "UTC: incomplete", lost)
}

// pause returns a time between connections: a few seconds after the last ones, by which the clocks of agents may be corrected.
func pause(t *testing.T) string {
	t.Helper()
	at := time.Now().UTC().Truncate(time.Second).Add(3 * time.Second)
	eventually(t, "the time comes", func(context.Context) error {
		if left := time.Until(at); left > 0 {
			return fmt.Errorf("in %s", left)
		}
		return nil
	})
	return at.Format(time.RFC3339)
}

func wantDial(t *testing.T, from, to *corev1.Pod, port uint16, want reach.Outcome) {
	t.Helper()
	if r := dial(t, from, to, port); r.Outcome != want {
		t.Errorf("%s to %s:%d: %+v, want %s", from.Name, to.Name, port, r, want)
	}
}

// visit runs a pod that connects to another twice and is then deleted. It returns its address.
func visit(t *testing.T, name string, to *corev1.Pod) netip.Addr {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: workload(name).MatchLabels}}
	pod.Spec.Containers = []corev1.Container{*podOf(t, "frontend").Spec.Containers[0].DeepCopy()}
	pod.Spec.Containers[0].VolumeMounts = nil
	pod.Spec.TerminationGracePeriodSeconds, pod.Spec.AutomountServiceAccountToken = ptr.To[int64](1), ptr.To(false)
	create(t, pod)
	eventually(t, "the pod is ready", func(ctx context.Context) error {
		if err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning || pod.Status.PodIP == "" {
			return fmt.Errorf("it is %s with the address %q", pod.Status.Phase, pod.Status.PodIP)
		}
		return ready(pod)
	})
	wantDial(t, pod, to, 5432, reach.Open)
	wantDial(t, pod, to, 5432, reach.Open)
	deleteObject(t, pod)
	eventually(t, "the pod is gone", func(ctx context.Context) error {
		err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), &corev1.Pod{})
		if err == nil {
			return errors.New("it is there")
		}
		return client.IgnoreNotFound(err)
	})
	return netip.MustParseAddr(pod.Status.PodIP)
}

// scaleObserver and wait until its pods are there, or gone.
func scaleObserver(t *testing.T, replicas string) {
	t.Helper()
	kubectl(t, "-n", engine.Namespace, "scale", "deployment/"+engine.Observer, "--replicas="+replicas)
	if replicas == "0" {
		kubectl(t, "-n", engine.Namespace, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=observer", "--timeout=1m")
		return
	}
	if err := engine.AwaitObserver(t.Context(), test); err != nil {
		t.Fatal(err)
	}
}

// policyFile writes policies as manifests.
func policyFile(t *testing.T, policies ...*networkingv1.NetworkPolicy) string {
	t.Helper()
	var b bytes.Buffer
	for _, p := range policies {
		manifest := p.DeepCopy()
		manifest.APIVersion, manifest.Kind = "networking.k8s.io/v1", "NetworkPolicy"
		text, err := yaml.Marshal(manifest)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "---\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "policies.yaml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
