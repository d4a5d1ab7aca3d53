package lab

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Where the DNS of clusters is, and the addresses of the one that the lab makes.
const (
	dnsNamespace = "kube-system"
	dnsLabel     = "k8s-app"
	dnsName      = "kube-dns"
)

var (
	dnsAddresses = map[bool]netip.Addr{true: netip.MustParseAddr("192.0.2.53"), false: netip.MustParseAddr("2001:db8::53")}
	dnsPort      = model.Port{Protocol: policy.UDP, Number: 53}
)

// firstNamed are the first of the addresses of hosts that have names.
var firstNamed = map[bool]netip.Addr{true: netip.MustParseAddr("198.51.100.1"), false: netip.MustParseAddr("2001:db8:5333::1")}

// mostNames are the names that a lab has hosts for.
const mostNames = 200

// addResolver finds or makes the pod that answers for the DNS names of policies, if they have any.
func (in *input) addResolver() {
	c := in.cluster
	if len(c.PolicyNames()) == 0 {
		return
	}
	if slices.ContainsFunc(c.Pods, func(p model.Pod) bool { return isResolver(&p) }) {
		return
	}
	if !slices.ContainsFunc(c.Namespaces, func(ns corev1.Namespace) bool { return ns.Name == dnsNamespace }) {
		c.Namespaces = append(c.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: dnsNamespace, Labels: map[string]string{corev1.LabelMetadataName: dnsNamespace}}})
	}
	p := model.Pod{Workload: model.Workload{Namespace: dnsNamespace, Kind: "Deployment", Name: dnsName}}
	p.ObjectMeta = metav1.ObjectMeta{Namespace: dnsNamespace, Name: dnsName, Labels: map[string]string{dnsLabel: dnsName}}
	p.Spec.Containers = []corev1.Container{{Name: dnsName, Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53, Protocol: corev1.ProtocolUDP}}}}
	p.Status.Phase = corev1.PodRunning
	for is4, addr := range dnsAddresses {
		if c.HasFamily(addr) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: dnsAddresses[is4].String()})
		}
	}
	c.Pods = append(c.Pods, p)
	slices.SortStableFunc(c.Pods, func(a, b model.Pod) int { return a.Workload.Compare(b.Workload) })
	in.remarks = append(in.remarks, fmt.Sprintf("policies have DNS names: the lab has made their resolver, pod %s/%s", dnsNamespace, dnsName))
}

func isResolver(p *model.Pod) bool {
	return p.Namespace == dnsNamespace && p.Labels[dnsLabel] == dnsName && policy.IsPeer(&p.Pod)
}

// addNames makes hosts outside the cluster of the names in policies.
func (in *input) addNames() {
	names := in.cluster.PolicyNames()
	if len(names) > mostNames {
		in.remarks = append(in.remarks, fmt.Sprintf("%d of %d DNS names are left out: a lab has %d at most", len(names)-mostNames, len(names), mostNames))
		names = names[:mostNames]
	}
	next := map[bool]netip.Addr{true: firstNamed[true], false: firstNamed[false]}
	for _, name := range names {
		for is4, addr := range next {
			if !in.cluster.HasFamily(addr) {
				continue
			}
			for slices.Contains(in.matrix.Outside, addr) {
				addr = addr.Next()
			}
			if in.matrix.Names == nil {
				in.matrix.Names = map[string][]netip.Addr{}
			}
			in.matrix.Names[name] = append(in.matrix.Names[name], addr)
			next[is4] = addr.Next()
		}
	}
}

// checkNames finds the resolver, and leaves the names out if no pod may ask it.
func (in *input) checkNames() {
	if len(in.matrix.Names) == 0 {
		return
	}
	i := slices.IndexFunc(in.cluster.Pods, func(p model.Pod) bool { return isResolver(&p) })
	if i >= 0 {
		in.resolver = &in.cluster.Pods[i]
		e := model.NewEvaluator(in.cluster)
		if slices.ContainsFunc(in.cluster.Pods, func(p model.Pod) bool { return len(questions(e, &p, in.resolver)) > 0 }) {
			return
		}
	}
	in.resolver, in.matrix.Names = nil, nil
	in.remarks = append(in.remarks, "the DNS names of policies are left out: policies allow no pod to ask a resolver in "+dnsNamespace+" at UDP 53")
}

// questions are the flows by which a pod may ask the resolver.
func questions(e *model.Evaluator, p, resolver *model.Pod) (out []policy.Flow) {
	if !policy.IsPeer(&p.Pod) || p.Key() == resolver.Key() {
		return nil
	}
	for _, from := range policy.PodAddresses(&p.Pod) {
		for _, to := range policy.PodAddresses(&resolver.Pod) {
			f := policy.Flow{Source: from, Destination: to, Protocol: dnsPort.Protocol, Port: dnsPort.Number}
			if from.Is4() == to.Is4() && e.Allows(f) {
				out = append(out, f)
			}
		}
	}
	return out
}
