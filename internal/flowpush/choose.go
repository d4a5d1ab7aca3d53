package flowpush

import (
	"cmp"
	"hash/fnv"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/flow"
)

// Choose returns which of the observer's pods a node pushes to: all of them, or one if they share a store. Nodes spread over those that are
// ready, and few of them change to another pod when one comes or goes.
func Choose(node string) func([]*corev1.Pod) []*corev1.Pod {
	return func(pods []*corev1.Pod) []*corev1.Pod {
		hasOwnStore := func(pod *corev1.Pod) bool { return pod.Labels[flow.StoreLabel] != flow.StoreShared }
		if len(pods) == 0 || slices.ContainsFunc(pods, hasOwnStore) {
			return pods
		}
		return []*corev1.Pod{slices.MaxFunc(pods, func(a, b *corev1.Pod) int {
			if isReady(a) != isReady(b) {
				if isReady(a) {
					return 1
				}
				return -1
			}
			return cmp.Compare(weight(node, a), weight(node, b))
		})}
	}
}

// weight is drawn for a node and a pod.
func weight(node string, pod *corev1.Pod) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(pod.Name + "\x00" + node))
	sum := h.Sum64()
	sum ^= sum >> 33 // the last bytes change only the low bits of the sum
	sum *= 0xff51afd7ed558ccd
	return sum ^ sum>>33
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
