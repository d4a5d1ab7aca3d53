package recommend

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
)

// unstable are labels that differ between versions, releases, replicas or runs of a workload. No policy may depend on them.
var unstable = map[string]bool{
	appsv1.DefaultDeploymentUniqueLabelKey: true, appsv1.ControllerRevisionHashLabelKey: true, appsv1.StatefulSetPodNameLabel: true, appsv1.PodIndexLabel: true,
	"pod-template-generation": true, "rollouts-pod-template-hash": true,
	batchv1.JobNameLabel: true, batchv1.ControllerUidLabel: true, batchv1.JobCompletionIndexAnnotation: true, "job-name": true, "controller-uid": true,
	"app.kubernetes.io/version": true, "app.kubernetes.io/managed-by": true, "helm.sh/chart": true, "helm.sh/revision": true,
	"chart": true, "heritage": true, "version": true, "revision": true, "release-revision": true, "commit": true, "sha": true, "build": true, "image-tag": true, "date": true,
}

// unstableWords are the last parts of keys, after a slash, a dot or a hyphen, that say the same.
var unstableWords = []string{"hash", "version", "revision", "uid", "index", "ordinal", "checksum", "sha", "commit", "digest", "build", "generation", "timestamp", "run-id", "runid"}

// looksGenerated matches values that look like a hash, an identifier or a version.
var looksGenerated = regexp.MustCompile(`^([0-9a-f]{12,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{20,}|v?\d+\.\d+(\.\d+)?([-+_.].*)?|\d{6,})$`)

// isStable reports whether a label may select a workload.
func isStable(key, value string) bool {
	if unstable[key] || looksGenerated.MatchString(value) {
		return false
	}
	name := strings.ToLower(key[strings.LastIndex(key, "/")+1:])
	return !slices.ContainsFunc(unstableWords, func(w string) bool {
		return name == w || strings.HasSuffix(name, "-"+w) || strings.HasSuffix(name, "."+w) || strings.HasSuffix(name, "_"+w)
	})
}

// preferred are the keys that people select workloads by, the best first. All others come after them, in order.
var preferred = []string{"app.kubernetes.io/name", "app", "k8s-app", "name", "app.kubernetes.io/component", "component", "app.kubernetes.io/instance", "instance", "release", "tier", "role"}

// common returns the stable labels that all of these have.
func common(pods []map[string]string) map[string]string {
	if len(pods) == 0 {
		return nil
	}
	out := maps.Clone(pods[0])
	maps.DeleteFunc(out, func(key, value string) bool {
		return !isStable(key, value) || slices.ContainsFunc(pods, func(p map[string]string) bool {
			v, ok := p[key]
			return !ok || v != value
		})
	})
	return out
}

// inOrder returns the keys of labels, those that are preferred first.
func inOrder(labels map[string]string) (out []string) {
	for _, key := range preferred {
		if _, ok := labels[key]; ok {
			out = append(out, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if !slices.Contains(preferred, key) {
			out = append(out, key)
		}
	}
	return out
}
