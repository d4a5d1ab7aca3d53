package hubble

import (
	"hash/fnv"
	"maps"
	"slices"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Identities that Hubble's clients know by number. Those of workloads follow identityReserved.
const (
	identityUnknown    = 0
	identityHost       = 1
	identityWorld      = 2
	identityRemoteNode = 6
	identityReserved   = 255
	identityBits       = 24
)

// identity returns a number that is the same for all pods of a workload. kidoban has no identities; clients group flows by them.
func identity(e *observerapi.End, node string) uint32 {
	switch {
	case e.IsNode && e.Node == node:
		return identityHost
	case e.IsNode:
		return identityRemoteNode
	case e.Namespace == "" && e.Address.IsValid():
		return identityWorld
	case e.Namespace == "":
		return identityUnknown
	}
	h := fnv.New32a()
	kind, name := "Pod", e.Pod
	if e.Workload != nil {
		kind, name = e.Workload.Kind, e.Workload.Name
	}
	for _, s := range []string{e.Namespace, kind, name} {
		_, _ = h.Write(append([]byte(s), 0))
	}
	return identityReserved + 1 + h.Sum32()%(1<<identityBits-identityReserved-1)
}

// labels returns labels in Hubble's form: each has its source before it. Labels of a hidden end are not known.
func labels(e *observerapi.End, id uint32) []string {
	switch id {
	case identityUnknown:
		return nil
	case identityHost:
		return []string{"reserved:host"}
	case identityWorld:
		return []string{"reserved:world"}
	case identityRemoteNode:
		return []string{"reserved:remote-node"}
	}
	out := []string{"k8s:io.kubernetes.pod.namespace=" + e.Namespace}
	for _, k := range slices.Sorted(maps.Keys(e.NamespaceLabels)) {
		out = append(out, "k8s:io.cilium.k8s.namespace.labels."+k+"="+e.NamespaceLabels[k])
	}
	for _, k := range slices.Sorted(maps.Keys(e.Labels)) {
		out = append(out, "k8s:"+k+"="+e.Labels[k])
	}
	return out
}

// endpoint returns an end; node is the node that the flow is shown from.
func endpoint(e *observerapi.End, node string) *flowpb.Endpoint {
	id := identity(e, node)
	out := &flowpb.Endpoint{Identity: id, Namespace: e.Namespace, PodName: e.Pod, Labels: labels(e, id)}
	if e.Workload != nil {
		out.Workloads = []*flowpb.Workload{{Name: e.Workload.Name, Kind: e.Workload.Kind}}
	}
	return out
}
