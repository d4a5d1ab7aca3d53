package command

import (
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// A live cluster has the workloads that no pod runs of.
func TestLiveWorkloadsWithoutPods(t *testing.T) {
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "a", Name: name} }
	ended := &corev1.Pod{ObjectMeta: in("backup-1-x"), Status: corev1.PodStatus{Phase: corev1.PodSucceeded, PodIP: "10.4.0.9"}}
	running := &corev1.Pod{ObjectMeta: in("db"), Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.4.0.1"}}
	c, err := Load(t.Context(), fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, ended, running, &batchv1.CronJob{ObjectMeta: in("backup")}).Build())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Workloads() {
		got = append(got, w.Kind+" "+w.String())
	}
	if text := strings.Join(got, ", "); text != "CronJob a/backup, Pod a/db" || c.Offline || len(c.Notes) > 0 {
		t.Errorf("%s; offline %v, %q", text, c.Offline, c.Notes)
	}
}
