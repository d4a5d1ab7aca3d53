//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// earlyKinds is with pods that controllers of Kubernetes create.
func earlyKinds(t *testing.T) {
	setAgents(t, held)
	var rows earlyRows
	rows.add(t, returningPods(t))
	if !testing.Short() { // a CronJob runs each minute
		rows.add(t, cronJobs(t))
	}
	rows.report(t, "kinds")
}

// returningPods are a StatefulSet's pods, which return under their names with other addresses.
func returningPods(t *testing.T) *earlyRow {
	row := newRow(held, ", StatefulSet", 1)
	for _, node := range steady {
		template := servingPod("", friend, node)
		// Init containers run in each sandbox, before the others.
		calling := template.Spec.Containers[0]
		calling.Name, calling.Args = "calls", callsAtOnce(t)
		template.Spec.InitContainers = []corev1.Container{calling}
		template.Labels["set"] = node
		create(t, &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "early-" + node},
			Spec: appsv1.StatefulSetSpec{
				Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"set": node}},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
			},
		})
	}
	before := map[string]*corev1.Pod{}
	for range times(25, 2) {
		for _, node := range steady {
			name := "early-" + node + "-0"
			var p *corev1.Pod
			eventually(t, name+" is ready", func(ctx context.Context) (err error) {
				if p, err = getPod(ctx, name); err == nil && (!isReady(p) || before[name] != nil && p.UID == before[name].UID) {
					err = fmt.Errorf("it is %s", p.Status.Phase)
				}
				return err
			})
			if old := before[name]; old != nil && old.Status.PodIP == p.Status.PodIP {
				t.Errorf("%s has returned with its address %s", name, p.Status.PodIP)
			}
			row.judge(t, p, printedBy(t, p, "calls"))
			before[name] = p
			must(t, api.Delete(t.Context(), p))
		}
	}
	return row
}

// cronJobs are the pods of CronJobs that run each minute.
func cronJobs(t *testing.T) *earlyRow {
	const each = 10
	row := newRow(held, ", CronJob", each*len(steady))
	var jobs []*batchv1.CronJob
	for _, node := range steady {
		run := job("", friend, node, callsAtOnce(t)...).Spec
		run.Parallelism, run.Completions = ptr.To[int32](each), ptr.To[int32](each)
		run.Template.Labels["cron"] = node
		jobs = append(jobs, &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "early-" + node},
			Spec:       batchv1.CronJobSpec{Schedule: "* * * * *", JobTemplate: batchv1.JobTemplateSpec{Spec: run}},
		})
		create(t, jobs[len(jobs)-1])
	}
	const want = 2 * each // of each node
	for _, cron := range jobs {
		node := cron.Spec.JobTemplate.Spec.Template.Spec.NodeName
		var done []corev1.Pod
		within(t, 4*time.Minute, cron.Name+" has run", func(ctx context.Context) error {
			var list corev1.PodList
			err := api.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{"cron": node})
			done = slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodSucceeded })
			if err == nil && len(done) < want {
				err = fmt.Errorf("%d pods of %d", len(done), want)
			}
			return err
		})
		for i := range done {
			row.judge(t, &done[i], printedBy(t, &done[i], "probe"))
		}
	}
	for _, cron := range jobs {
		must(t, api.Delete(t.Context(), cron, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	}
	return row
}

// newServers joins new servers to a Service that friends call all the time. From the first one on, no call may be lost.
func newServers(t *testing.T) {
	const label = "joins"
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "early"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{label: "early"}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
			Ports: []corev1.ServicePort{{Port: servedPort, TargetPort: intstr.FromInt32(servedPort)}},
		},
	}
	create(t, service)
	var to []reach.Target
	for _, address := range service.Spec.ClusterIPs {
		to = append(to, reach.Target{Protocol: "tcp", Address: netip.AddrPortFrom(netip.MustParseAddr(address), servedPort)})
	}
	join := func(i int) {
		t.Helper()
		p := servingPod(fmt.Sprintf("joins-%d", i), server, steady[i%len(steady)])
		p.Labels[label] = "early"
		p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(servedPort)}},
			PeriodSeconds: 1,
		}
		startPod(t, p)
	}
	join(0)
	var watches []*cluster.Watch
	for _, node := range steady {
		from := member(t, friend, node)
		eventually(t, "the Service answers "+from.Name, func(ctx context.Context) error { return want(ctx, from, to, reach.Open) })
		w, err := test.WatchEvery(context.Background(), 20*time.Millisecond, from, to, nil, probeTimeout)
		must(t, err)
		t.Cleanup(func() { _, _ = w.Stop() })
		await(t, w, 1)
		watches = append(watches, w)
	}
	n := times(50, 2)
	for i := range n {
		join(i + 1)
	}
	var sum tally
	var late int // calls whose first packet was lost
	for i, w := range watches {
		await(t, w, 1) // of the last server
		results, err := w.Stop()
		must(t, err)
		for _, r := range results {
			sum.count(friend+"-"+steady[i], r, true)
			if r.Outcome == reach.Open && lostFirst(r) {
				late++
			}
		}
	}
	if sum.drops+late > 0 {
		t.Errorf("%d calls were not answered and %d lost their first packet, after servers were ready: %s", sum.drops, late, sum.examples())
	}
	writeEarly(t, "servers", "| new servers of a Service | calls of friends meanwhile | not answered | lost the first packet |\n|---:|---:|---:|---:|\n"+
		fmt.Sprintf("| %d | %d | %d | %d |\n", n, sum.connections, sum.drops, late))
}

// addressTaken gives the address of a friend to a pod of another namespace that no policy lets call servers, while the friend's status has it.
func addressTaken(t *testing.T) {
	const elsewhere = "early-elsewhere"
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: elsewhere}})
	setAgents(t, held)
	n := times(50, 2)
	wrong := 0
	var took []time.Duration
	for i := range n {
		node := steady[i%len(steady)]
		former := pod(fmt.Sprintf("reused-%d", i), friend, node, "serve", "--tcp=8080")
		former.Spec.RestartPolicy = corev1.RestartPolicyNever
		former = startPod(t, former)
		eventually(t, "the friend may call", func(ctx context.Context) error {
			return want(ctx, former, targets(called(t), "tcp", servedPort), reach.Open)
		})
		next := pod(fmt.Sprintf("reuses-%d", i), friend, node, callsAtOnce(t)...)
		next.Namespace, next.Spec.RestartPolicy = elsewhere, corev1.RestartPolicyNever
		freed := time.Now()
		must(t, test.StopSandbox(t.Context(), former))
		allocateNext(t, node, former.Status.PodIPs)
		must(t, createRetrying(t.Context(), next))
		t.Cleanup(func() { remove(t, next) })
		eventually(t, next.Name+" has called", func(ctx context.Context) error {
			err := api.Get(ctx, keyOf(next), next)
			if err == nil && next.Status.Phase != corev1.PodSucceeded {
				err = fmt.Errorf("it is %s", next.Status.Phase)
			}
			return err
		})
		if !slices.Equal(next.Status.PodIPs, former.Status.PodIPs) {
			t.Errorf("%s has %v and not the address of %s, %v: nothing is tested", next.Name, next.Status.PodIPs, former.Name, former.Status.PodIPs)
		}
		var start time.Time
		for _, result := range printedResults(t, printedBy(t, next, "probe")) {
			if start.IsZero() || result.Start.Before(start) {
				start = result.Start
			}
			if result.Outcome == reach.Open {
				wrong++
				t.Errorf("%s on %s reached %s with the address of %s", next.Name, node, result.Target, former.Name)
			}
		}
		took = append(took, start.Sub(freed))
		remove(t, next)
		remove(t, former)
	}
	slices.Sort(took)
	writeEarly(t, "reuse", "| pods with another pod's former address | passed wrongly | first call after the former sandbox stopped, p50 | shortest |\n|---:|---:|---:|---:|\n"+
		fmt.Sprintf("| %d | %d | %d ms | %d ms |\n", n, wrong, took[len(took)/2].Milliseconds(), took[0].Milliseconds()))
}
