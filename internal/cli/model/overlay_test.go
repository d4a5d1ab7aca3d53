package model

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Whatever labels tell the pods of a workload apart, to apply what is there changes nothing.
func TestWhatIsThereAppliedAgainChangesNothing(t *testing.T) {
	const policies = `
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: of-one}
spec: {podSelector: {matchLabels: {statefulset.kubernetes.io/pod-name: db-0}}, policyTypes: [Ingress]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: of-the-primary}
spec: {podSelector: {matchLabels: {role: primary}}, policyTypes: [Ingress]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: of-one-run}
spec: {podSelector: {matchLabels: {job-name: nightly-29012345}}, policyTypes: [Ingress]}
`
	const set = `
kind: StatefulSet
apiVersion: apps/v1
metadata: {name: db}
spec: {replicas: 2, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}}
`
	const cron = `
---
kind: CronJob
apiVersion: batch/v1
metadata: {name: nightly}
spec: {jobTemplate: {spec: {template: {metadata: {labels: {app: nightly}}, spec: {containers: [{name: c}]}}}}}
`
	const pods = `
---
kind: Pod
apiVersion: v1
metadata: {name: db-0, labels: {app: db, role: primary, statefulset.kubernetes.io/pod-name: db-0}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}
spec: {containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.1}
---
kind: Pod
apiVersion: v1
metadata: {name: db-1, labels: {app: db, statefulset.kubernetes.io/pod-name: db-1}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}
spec: {containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.2}
---
kind: Pod
apiVersion: v1
metadata: {name: nightly-29012345-x7, labels: {app: nightly, job-name: nightly-29012345}, ownerReferences: [{kind: Job, name: nightly-29012345, controller: true}]}
spec: {containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.3}
`
	for name, tc := range map[string]struct{ before, applied string }{
		"workloads to workloads": {set + cron + policies, set + cron + policies},
		"pods to pods":           {set + pods + policies, set + pods + policies},
		"workloads to pods":      {set + pods + policies, cron + policies},
		"fewer replicas":         {set + policies, "\nkind: StatefulSet\napiVersion: apps/v1\nmetadata: {name: db}\nspec: {replicas: 1, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}}\n" + policies},
	} {
		before := mustRead(t, tc.before)
		after, err := before.Apply(mustRead(t, tc.applied), false)
		if err != nil {
			t.Fatal(err)
		}
		if d := NewDifference(before, after); !d.Empty() {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// ClusterNetworkPolicies are replaced by their names; with prune, those that are not among the manifests' go, if these have any.
func TestApplyClusterPolicies(t *testing.T) {
	before := mustRead(t, clusterPolicyText+"---\n"+strings.Replace(clusterPolicyText, "tenants", "others", 1))
	changed := mustRead(t, strings.Replace(clusterPolicyText, "priority: 7", "priority: 8", 1))
	names := func(manifests *Cluster, prune bool) (out []string) {
		c, err := before.Apply(manifests, prune)
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.ClusterPolicies {
			out = append(out, fmt.Sprint(c.ClusterPolicies[i].Name, c.ClusterPolicies[i].Spec.Priority))
		}
		return out
	}
	for _, tc := range []struct {
		manifests *Cluster
		prune     bool
		want      []string
	}{
		{changed, false, []string{"others7", "tenants8"}},
		{changed, true, []string{"tenants8"}},
		{mustRead(t, deny), true, []string{"others7", "tenants7"}},
	} {
		if got := names(tc.manifests, tc.prune); !slices.Equal(got, tc.want) {
			t.Errorf("prune %v: %q, want %q", tc.prune, got, tc.want)
		}
	}
}
