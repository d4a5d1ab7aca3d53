package workload

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOf(t *testing.T) {
	hash := map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: "6d4b"}
	for _, tc := range []struct {
		name, pod string
		owner     *metav1.OwnerReference
		labels    map[string]string
		want      Workload
	}{
		{"no owner", "web", nil, nil, Workload{"Pod", "web"}},
		{"an owner that is not the controller", "web", &metav1.OwnerReference{Kind: "ReplicaSet", Name: "cart"}, nil, Workload{"Pod", "web"}},
		{"Deployment", "cart-6d4b-x", controller("ReplicaSet", "cart-6d4b"), hash, Workload{"Deployment", "cart"}},
		{"ReplicaSet without the hash", "cart-6d4b-x", controller("ReplicaSet", "cart-6d4b"), nil, Workload{"ReplicaSet", "cart-6d4b"}},
		{"ReplicaSet of another name", "cart-x", controller("ReplicaSet", "cart"), hash, Workload{"ReplicaSet", "cart"}},
		{"StatefulSet", "cart-0", controller("StatefulSet", "cart"), nil, Workload{"StatefulSet", "cart"}},
		{"CronJob", "report-29012345-x", controller("Job", "report-29012345"), nil, Workload{"CronJob", "report"}},
		{"Job", "report-1-x", controller("Job", "report-1"), nil, Workload{"Job", "report-1"}},
		{"static pod", "proxy-node-a", controller("Node", "node-a"), nil, Workload{"Pod", "proxy"}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: tc.pod, Labels: tc.labels}}
		if tc.owner != nil {
			pod.OwnerReferences = []metav1.OwnerReference{*tc.owner}
		}
		if got := Of(pod); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func controller(kind, name string) *metav1.OwnerReference {
	return &metav1.OwnerReference{Kind: kind, Name: name, Controller: new(true)}
}
