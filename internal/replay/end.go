package replay

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
)

// Party is an end of flows as a report names it: a workload, a node, or addresses outside the cluster.
type Party struct {
	// Namespace and Kind of a workload. Kind is Node for a node and Outside for what is neither.
	Namespace string `json:"namespace,omitempty"`
	Kind      string `json:"kind"`
	// Name of the workload or the node; of what is outside its domain names, if some are known.
	Name string `json:"name,omitempty"`
	// class tells outside addresses apart that policies tell apart.
	class string
}

// nameSeparator is between the domain names of a party.
const nameSeparator = ", "

// Kinds of parties that are no workloads.
const (
	KindNode    = "Node"
	KindOutside = "Outside"
)

// String is "namespace/name".
func (p Party) String() string {
	switch {
	case p.Namespace != "":
		return p.Namespace + "/" + p.Name
	case p.Kind == KindNode:
		return "node " + p.Name
	}
	return p.Name
}

// DomainNames of what is outside.
func (p Party) DomainNames() []string {
	if p.Kind != KindOutside || p.Name == "" {
		return nil
	}
	return strings.Split(p.Name, nameSeparator)
}

// Compare orders parties by namespace, name, kind and class.
func (p Party) Compare(q Party) int {
	return cmp.Or(cmp.Compare(p.Namespace, q.Namespace), cmp.Compare(p.Name, q.Name), cmp.Compare(p.Kind, q.Kind), cmp.Compare(p.class, q.class))
}

// PartyOf returns the party that an end of a flow belongs to.
func PartyOf(e *observerapi.End) Party {
	switch {
	case e.IsNode:
		return Party{Kind: KindNode, Name: e.Node}
	case e.Namespace == "":
		return Party{Kind: KindOutside, Name: strings.Join(e.DomainNames, nameSeparator)}
	case e.Workload != nil:
		return Party{Namespace: e.Namespace, Kind: e.Workload.Kind, Name: e.Workload.Name}
	}
	return Party{Namespace: e.Namespace, Kind: "Pod", Name: e.Pod}
}

// Reason why a flow cannot be decided.
type Reason string

// The reasons.
const (
	ReasonHidden    Reason = "an end is in a namespace that the reader of the flows may not read"
	ReasonLabels    Reason = "the labels of a pod were not recorded"
	ReasonAddress   Reason = "an address was not kept exactly, and the verdict depends on it"
	ReasonPod       Reason = "no pod is known at an address of the pods' networks"
	ReasonNode      Reason = "the labels of a node are not known, and a rule selects nodes"
	ReasonOwnNode   Reason = "it was not recorded whether a pod runs on the node that it talks with"
	ReasonName      Reason = "it was not recorded whether an address has the domain name of a rule"
	ReasonPort      Reason = "the port was not recorded"
	ReasonProtocol  Reason = "the protocol was not recorded"
	ReasonManyBlock Reason = "an address was not kept exactly, and policies have too many CIDRs to try all"
)

// end is one end of flows, read once.
type end struct {
	observerapi.End
	party Party
	pod   *corev1.Pod
	ns    *corev1.Namespace
	// node is the name of the node that has the address, empty if none has.
	node string
	// identity is equal for ends that no policy can tell apart.
	identity uint32
	problem  Reason
	// changed is set if the policies of its namespace differ between the sets.
	changed bool
}

func (j *Judge) newEnd(e observerapi.End) *end {
	out := &end{End: e}
	out.Address = e.Address.Unmap()
	switch {
	case e.Hidden:
		out.problem = ReasonHidden
	case e.IsNode:
		out.node = e.Node
		if _, known := j.nodesByName[e.Node]; !known && j.features.nodes {
			out.problem = ReasonNode
		}
	case e.Namespace == "":
		out.node = j.nodeAt[out.Address]
		if j.isPodAddress(out.Address) {
			out.problem = ReasonPod
		}
	case e.NamespaceLabels == nil: // each namespace has a label, its name
		out.problem = ReasonLabels
	default:
		out.pod, out.ns = podOf(&out.End), namespaceOf(&out.End)
	}
	out.changed = j.changed[e.Namespace]
	key := j.features.look(out)
	out.party = PartyOf(&out.End)
	if out.party.Kind == KindOutside {
		out.party.class = key
	}
	identity, ok := j.identities[key]
	if !ok {
		identity = uint32(len(j.identities))
		j.identities[key] = identity
	}
	out.identity = identity
	return out
}

func namespaceOf(e *observerapi.End) *corev1.Namespace {
	ns := &corev1.Namespace{}
	ns.Name, ns.Labels = e.Namespace, e.NamespaceLabels
	return ns
}

func podOf(e *observerapi.End) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID, pod.Labels = e.Namespace, e.Pod, types.UID(e.UID), e.Labels
	pod.Spec.NodeName = e.Node
	c := corev1.Container{}
	for _, p := range e.NamedPorts {
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: p.Name, Protocol: corev1.Protocol(p.Protocol), ContainerPort: int32(p.Number)})
	}
	pod.Spec.Containers = []corev1.Container{c}
	setAddress(pod, e.Address)
	return pod
}

func setAddress(pod *corev1.Pod, a netip.Addr) {
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning}
	if a.IsValid() {
		pod.Status.PodIP = a.String()
		pod.Status.PodIPs = []corev1.PodIP{{IP: a.String()}}
	}
}

// look returns a key that is equal for ends that policies cannot tell apart.
func (f *features) look(e *end) string {
	var b strings.Builder
	write := func(keys []string, labels map[string]string) {
		for _, key := range keys {
			if value, ok := labels[key]; ok {
				b.WriteByte(1)
				b.WriteString(value)
			}
			b.WriteByte(0)
		}
		b.WriteByte(0)
	}
	fmt.Fprintf(&b, "%d %t %t %s\x00%s\x00", bits(e.Address), e.pod != nil, e.IsNode, e.problem, e.Namespace)
	if e.pod != nil {
		fmt.Fprintf(&b, "%t ", e.Node == "")
		write(f.labels, e.Labels)
		write(f.namespaceLabels, e.NamespaceLabels)
		if f.namedPorts {
			for _, p := range e.NamedPorts {
				fmt.Fprintf(&b, "%s %s %d;", p.Name, p.Protocol, p.Number)
			}
			b.WriteByte(0)
		}
	}
	if e.IsNode {
		b.WriteString(e.node)
		b.WriteByte(0)
	}
	for i, block := range f.blocks {
		if e.Address.IsValid() && block.Contains(e.Address) {
			fmt.Fprintf(&b, "%d ", i)
		}
	}
	if e.pod == nil && len(f.names) > 0 {
		fmt.Fprintf(&b, "\x00%t ", len(e.DomainNames) >= agentapi.MaxDomainNames)
		for i, pattern := range f.names {
			if covers(pattern, e.DomainNames) {
				fmt.Fprintf(&b, "%d ", i)
			}
		}
	}
	return b.String()
}

func bits(a netip.Addr) int {
	if !a.IsValid() {
		return 0
	}
	return a.BitLen()
}

func covers(pattern string, names []string) bool {
	for _, n := range names {
		if policy.CoversName(pattern, n) {
			return true
		}
	}
	return false
}
