package migrate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/migrate/calico/convert"
)

// gather what there is of Calico's. What may not be listed is an error: an answer without it could be wrong.
func gather(ctx context.Context, c client.Client) (*Check, error) {
	check := &Check{Kinds: map[string]int{}}
	g := &gatherer{ctx: ctx, client: c, check: check}
	for _, step := range []func() error{g.definitions, g.daemonSets, g.installation, g.felix, g.network, g.nodes, g.policies} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return check, nil
}

type gatherer struct {
	ctx    context.Context
	client client.Client
	check  *Check
	// node is Calico's DaemonSet, proxy kube-proxy's, amazon that of Amazon's VPC CNI; nil where there is none.
	node, proxy, amazon *appsv1.DaemonSet
	ebpf                bool
}

func (g *gatherer) definitions() error {
	list, err := listKind(g.ctx, g.client, schema.GroupKind{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"})
	if err != nil {
		return err
	}
	groups := map[string]int{}
	for i := range list {
		group, _, _ := unstructured.NestedString(list[i].Object, "spec", "group")
		if strings.HasSuffix(group, "projectcalico.org") || group == "operator.tigera.io" {
			groups[group]++
		}
	}
	for _, group := range []string{"crd.projectcalico.org", "projectcalico.org", "operator.tigera.io"} {
		if n := groups[group]; n > 0 {
			g.check.find(Tells, "kinds of objects", "", "%d of %s", n, group)
		}
	}
	return nil
}

func (g *gatherer) daemonSets() error {
	var list appsv1.DaemonSetList
	if err := g.client.List(g.ctx, &list); err != nil {
		return fmt.Errorf("list DaemonSets: %w", err)
	}
	for i := range list.Items {
		switch d := &list.Items[i]; d.Name {
		case "calico-node":
			g.node = d
		case "kube-proxy":
			g.proxy = d
		case "aws-node":
			g.amazon = d
		}
	}
	if g.node == nil {
		g.check.find(Tells, "calico-node", "", "no such DaemonSet: Calico does not run here")
		return nil
	}
	g.check.find(Tells, "calico-node", "", "DaemonSet %s/calico-node, %s, on %d nodes", g.node.Namespace, image(g.node), g.node.Status.DesiredNumberScheduled)
	g.ebpf = strings.EqualFold(variable(g.node, "FELIX_BPFENABLED"), "true")
	return nil
}

func image(d *appsv1.DaemonSet) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Name == "calico-node" {
			return c.Image
		}
	}
	return "no container calico-node"
}

func variable(d *appsv1.DaemonSet, name string) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, e := range c.Env {
			if e.Name == name {
				return e.Value
			}
		}
	}
	return ""
}

func (g *gatherer) get(group, kind, name string) (*unstructured.Unstructured, error) {
	list, err := listKind(g.ctx, g.client, schema.GroupKind{Group: group, Kind: kind})
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].GetName() == name {
			return &list[i], nil
		}
	}
	return nil, nil
}

func (g *gatherer) installation() error {
	o, err := g.get("operator.tigera.io", "Installation", "default")
	if err != nil || o == nil {
		if err == nil && g.node != nil {
			g.check.find(Tells, "installed by", "", "manifests or Helm: there is no Installation of the operator's")
		}
		return err
	}
	g.check.find(Tells, "installed by", "delete the Installation when the time comes; the operator takes away what it made", "the operator: Installation default")
	if plane, _, _ := unstructured.NestedString(o.Object, "spec", "calicoNetwork", "linuxDataplane"); plane != "" {
		g.check.find(Tells, "dataplane", "", "%s", plane)
		g.ebpf = g.ebpf || strings.EqualFold(plane, "BPF")
	}
	if cni, _, _ := unstructured.NestedString(o.Object, "spec", "cni", "type"); cni == "Calico" {
		g.isNetwork("Installation default says spec.cni.type: Calico")
	}
	return nil
}

// isNetwork: pods have their interfaces from Calico.
func (g *gatherer) isNetwork(why string) {
	g.check.find(Blocks, "the pods' network", "kidoban enforces policies and is no CNI: move the pods to another one (Amazon's VPC CNI, kindnet, flannel, ptp) on new nodes, as a blue/green move, or keep Calico as the CNI",
		"Calico is the CNI: %s", why)
}

func (g *gatherer) felix() error {
	list, err := listCalico(g.ctx, g.client, "FelixConfiguration")
	if err != nil {
		return err
	}
	for i := range list {
		spec, _, _ := unstructured.NestedMap(list[i].Object, "spec")
		if on, _ := spec["bpfEnabled"].(bool); on {
			g.ebpf = true
		}
		for _, field := range []string{"wireguardEnabled", "wireguardEnabledV6"} {
			if on, _ := spec[field].(bool); on {
				g.check.find(Blocks, "encryption", "encrypt by other means first, as the instances' own encryption in transit, or a mesh",
					"FelixConfiguration %s has %s: traffic between nodes goes in the clear when Calico is gone", list[i].GetName(), field)
			}
		}
	}
	if !g.ebpf {
		return nil
	}
	g.check.find(Blocks, "eBPF mode", "set bpfEnabled: false (operator: linuxDataplane: Iptables) while Calico runs, with kube-proxy back, and let it clean up itself",
		"Calico's programs take packets past netfilter, where kidoban judges them, and take kube-proxy's place")
	if g.proxy == nil {
		g.check.find(Blocks, "kube-proxy", "install it again, in iptables or nftables mode", "there is no DaemonSet kube-proxy, and Services need it when Calico is gone")
	}
	return nil
}

// network: whose the pods' network is.
func (g *gatherer) network() error {
	if g.node != nil {
		for _, c := range g.node.Spec.Template.Spec.InitContainers {
			if c.Name == "install-cni" && !slices.ContainsFunc(g.check.Findings, func(f Finding) bool { return f.About == "the pods' network" }) {
				g.isNetwork("calico-node has an init container install-cni")
			}
		}
	}
	if g.amazon != nil {
		g.check.find(Tells, "CNI", "", "Amazon's VPC CNI: DaemonSet %s/aws-node", g.amazon.Namespace)
	}
	for _, kind := range []string{"BGPPeer", "IPPool", "HostEndpoint"} {
		list, err := listCalico(g.ctx, g.client, kind)
		if err != nil {
			return err
		}
		if n := len(list); n > 0 {
			g.check.Kinds[kind] = n
		}
	}
	if n := g.check.Kinds["BGPPeer"]; n > 0 {
		g.check.find(Blocks, "routes", "announce them by other means", "%d BGPPeers: routers learn the cluster's addresses from Calico", n)
	}
	if n := g.check.Kinds["HostEndpoint"]; n > 0 {
		g.check.find(Warns, "host endpoints", "guard the nodes by security groups or a firewall", "%d HostEndpoints: Calico guards the nodes themselves, which kidoban does not", n)
	}
	return nil
}

// oldest is the kernel that kidoban needs.
var oldest = [2]int{6, 6}

func (g *gatherer) nodes() error {
	var list corev1.NodeList
	if err := g.client.List(g.ctx, &list); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	old := map[string][]string{}
	var windows []string
	for i := range list.Items {
		n := &list.Items[i]
		if n.Labels[corev1.LabelOSStable] == "windows" {
			windows = append(windows, n.Name)
			continue
		}
		if v := n.Status.NodeInfo.KernelVersion; isOld(v) {
			old[v] = append(old[v], n.Name)
		}
	}
	for v, names := range old {
		g.check.find(Blocks, "kernel", "take an image with Linux 6.6 or newer", "%d nodes run Linux %s, as %s", len(names), v, names[0])
	}
	if len(windows) > 0 {
		g.check.find(Blocks, "Windows", "keep Calico there", "%d nodes run Windows, as %s, where kidoban does not run", len(windows), windows[0])
	}
	return nil
}

func isOld(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.FieldsFunc(parts[1], func(r rune) bool { return r < '0' || r > '9' })[0])
	return err1 == nil && err2 == nil && (major < oldest[0] || major == oldest[0] && minor < oldest[1])
}

// policies counts them, and tries to convert them.
func (g *gatherer) policies() error {
	in, err := readLive(g.ctx, g.client)
	if err != nil {
		if g.node == nil && !apierrors.IsForbidden(err) {
			g.check.find(Tells, "policies", "", "%v", err)
			return nil
		}
		return err
	}
	for i := range in.set.Policies {
		g.check.Kinds[in.set.Policies[i].Kind]++
	}
	for i := range in.set.NetworkSets {
		kind, _, _ := strings.Cut(in.set.NetworkSets[i].String(), " ")
		g.check.Kinds[kind]++
	}
	for _, p := range in.set.Inert {
		kind, _, _ := strings.Cut(p.Object, " ")
		g.check.Kinds[kind]++
	}
	if n := len(in.set.Tiers); n > 0 {
		g.check.Kinds["Tier"] = n
	}
	in.kubernetes(isNotConverted)
	result := convert.Convert(in.set, convert.Options{Namespaces: in.namespaces(), Cluster: true, ExpandGlobal: true})
	all := len(result.Converted) + len(result.NotConverted)
	g.check.find(Tells, "policies", "", "%s", kinds(g.check.Kinds))
	for _, p := range in.notOf(result.Refused) {
		g.check.find(Blocks, "conversion", p.Fix, "%s: %s", p.Object, p.Problem)
	}
	switch {
	case all == 0:
		g.check.find(Tells, "conversion", "", "Calico has no policies of its own: Kubernetes' NetworkPolicies are all there is")
	case len(result.NotConverted) > 0:
		g.check.find(Blocks, "conversion", "kubectl kidoban migrate calico convert says why, and what could be done", "%d of %d policies cannot be converted as they are", len(result.NotConverted), all)
	default:
		g.check.find(Tells, "conversion", "", "all %d policies can be converted, as ClusterNetworkPolicies or into each namespace", all)
	}
	return nil
}

// kinds as "2 NetworkPolicy, 1 Tier".
func kinds(count map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%d %s", count[kind], kind))
	}
	if len(parts) == 0 {
		return "no objects of Calico's about policies"
	}
	return strings.Join(parts, ", ")
}
