//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"slices"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/reach"
)

// newcomer is the role of pods that call from their first instruction on: servers and strangers, on one port.
const newcomer = "newcomer"

// enoughRounds of a probe are more than the time in which a new pod's address is in force everywhere.
const enoughRounds = 60

// job is a Job of one pod that is never restarted.
func job(name, role, node string, args ...string) *batchv1.Job {
	template := pod("", role, node, args...)
	template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](0),
			Template:     corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}
}

// removeJob deletes a Job, and its pods in the background.
func removeJob(t *testing.T, name string) {
	t.Helper()
	err := api.Delete(context.Background(), &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
}

// podOfJob is the completed pod of a Job, or an error that says what it is instead.
func podOfJob(ctx context.Context, j *batchv1.Job) (*corev1.Pod, error) {
	var list corev1.PodList
	if err := api.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{batchv1.ControllerUidLabel: string(j.UID)}); err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("Job %s has %d pods", j.Name, len(list.Items))
	}
	if pod := &list.Items[0]; pod.Status.Phase != corev1.PodSucceeded {
		return nil, fmt.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
	}
	return &list.Items[0], nil
}

// runJob creates a Job and waits until its pod has completed.
func runJob(t *testing.T, j *batchv1.Job) *corev1.Pod {
	t.Helper()
	must(t, api.Create(t.Context(), j))
	var done *corev1.Pod
	eventually(t, "Job "+j.Name+" has completed", func(ctx context.Context) (err error) {
		done, err = podOfJob(ctx, j)
		return err
	})
	return done
}

// callsByRole are the calls of new friends and strangers. A friend may call servers and nothing else; a stranger may call strangers, and
// servers do not let it in.
func callsByRole(t *testing.T) map[string]calls {
	t.Helper()
	var servers, strangers []reach.Target
	for _, node := range steady {
		servers = append(servers, targets(member(t, server, node), "tcp", servedPort)...)
		strangers = append(strangers, targets(member(t, stranger, node), "tcp", servedPort)...)
	}
	return map[string]calls{friend: {allowed: servers, denied: strangers}, stranger: {allowed: strangers, denied: servers}}
}

// jobRecreated gives a Job's name to a Job with other labels as soon as the first one is deleted.
func jobRecreated(t *testing.T) []caseRow {
	t.Cleanup(func() { removeJob(t, "recreated") })
	roles := callsByRole(t)
	var sum tally
	var first firstConnections
	for i := range times(20, 2) {
		role := []string{friend, stranger}[i%2]
		c := roles[role]
		done := runJob(t, job("recreated", role, steady[i/2%2], c.args(enoughRounds)...))
		c.judge(t, done, finishedResults(t, done), &sum, &first)
		removeJob(t, "recreated")
	}
	return []caseRow{{"a Job recreated under its name with other labels", nothingWrong, sum, &first}}
}

// newcomersMayCall creates the policies of newcomers, and returns what they may call and what not, on both steady nodes: the newcomer's own
// policy decides on strangers, and the server's on servers, for which it must have the newcomer's address.
func newcomersMayCall(t *testing.T) calls {
	t.Helper()
	create(t,
		&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: newcomer},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: *role(newcomer),
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
				Egress: []networkingv1.NetworkPolicyEgressRule{
					{To: []networkingv1.NetworkPolicyPeer{{PodSelector: role(server)}}},
					{To: []networkingv1.NetworkPolicyPeer{{PodSelector: role(stranger)}}, Ports: []networkingv1.NetworkPolicyPort{tcp(servedPort)}},
				},
			},
		},
		ingress("server-newcomer", server, newcomer, tcp(servedPort)),
		// In mode strict strangers are isolated without a policy.
		&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "open-strangers"},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: *role(stranger),
				PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
				Ingress:     []networkingv1.NetworkPolicyIngressRule{{}},
			},
		},
	)
	var c calls
	for _, node := range steady {
		for _, called := range []*corev1.Pod{member(t, server, node), member(t, stranger, node)} {
			c.allowed = append(c.allowed, targets(called, "tcp", servedPort)...)
			c.denied = append(c.denied, targets(called, "tcp", shutPort)...)
		}
	}
	// The policies are in force once a newcomer gets what they say.
	sample := startPod(t, servingPod("first-newcomer", newcomer, steady[0]))
	eventually(t, "the policies of newcomers are in force", func(ctx context.Context) error {
		if err := want(ctx, sample, c.allowed, reach.Open); err != nil {
			return err
		}
		return want(ctx, sample, c.denied, reach.TimedOut)
	})
	remove(t, sample)
	return c
}

// shortJobs runs Jobs whose pods call with their first instruction, several at a time, in each mode.
func shortJobs(t *testing.T) []caseRow {
	c := newcomersMayCall(t)
	modes := []string{"standard", "guarded", "strict"}
	if testing.Short() {
		modes = modes[:1] // the default
	}
	var rows []caseRow
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			if !testing.Short() {
				setMode(t, mode)
			}
			var sum tally
			var first firstConnections
			runJobs(t, times(200, 4), c, &sum, &first)
			rows = append(rows, caseRow{fmt.Sprintf("%d short Jobs, mode %s", times(200, 4), mode), nothingWrong, sum, &first})
		})
	}
	return rows
}

// runJobs runs n Jobs, at most 8 at a time, alternately on the steady nodes.
func runJobs(t *testing.T, n int, c calls, sum *tally, first *firstConnections) {
	t.Helper()
	var running []*batchv1.Job
	started := 0
	for started < n || len(running) > 0 {
		for len(running) < 8 && started < n {
			j := job(fmt.Sprintf("short-%d", started), newcomer, steady[started%2], c.args(enoughRounds)...)
			started++
			must(t, api.Create(t.Context(), j))
			t.Cleanup(func() { removeJob(t, j.Name) })
			running = append(running, j)
		}
		eventually(t, "a short Job has completed", func(ctx context.Context) error {
			var last error
			before := len(running)
			running = slices.DeleteFunc(running, func(j *batchv1.Job) bool {
				done, err := podOfJob(ctx, j)
				if err != nil {
					last = err
					return false
				}
				c.judge(t, done, finishedResults(t, done), sum, first)
				removeJob(t, j.Name)
				return true
			})
			if len(running) == before {
				return last
			}
			return nil
		})
	}
}
