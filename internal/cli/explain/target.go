package explain

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// An end of a flow: a pod, or an address that is none's.
type end struct {
	pod       *model.Pod
	addresses []netip.Addr
}

// onHost: what such an end is judged by depends on the node of the other one.
func (e end) onHost() bool { return e.pod == nil || e.pod.Spec.HostNetwork }

func (e end) String() string {
	if e.pod == nil {
		return e.addresses[0].String()
	}
	return e.pod.Describe()
}

// findEnds resolves "namespace/pod", "namespace/workload", "pod", one of these after a kind, or an address. A workload is its pods, and a
// Service those behind it. The beginning of a name, up to a hyphen, will do if it names one workload alone: pods of which no owner is known,
// as db-0, have no other name in common. The answer has the full names.
func findEnds(c *model.Cluster, e *model.Evaluator, namespace, name string) ([]end, error) {
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		addr = addr.Unmap()
		return []end{{pod: e.PodAt(addr), addresses: []netip.Addr{addr}}}, nil
	}
	if service, ok := model.CutService(name); ok {
		s, err := c.FindService(service, namespace)
		if err != nil {
			return nil, err
		}
		pods, err := c.ServicePods(s)
		if err != nil {
			return nil, err
		}
		return podEnds(pods)
	}
	wanted, err := model.ParseName(name, namespace)
	if err != nil {
		return nil, err
	}
	namespace, name = wanted.Namespace, wanted.Name
	var pods, begun []*model.Pod
	var near []string
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Namespace == namespace && wanted.Kind == "" && strings.HasPrefix(p.Workload.Name, name+"-") {
			begun = append(begun, p)
		}
		switch {
		case p.Namespace != namespace:
			continue
		case p.Name == name && (wanted.Kind == "" || wanted.Kind == "Pod"):
			out, err := podEnd(p)
			return []end{out}, err
		case wanted.IsOf(p.Workload):
			pods = append(pods, p)
		}
		near = append(near, p.Workload.Name)
	}
	if len(pods) > 0 {
		return podEnds(pods)
	}
	another := func(p *model.Pod) bool { return p.Workload != begun[0].Workload }
	if len(begun) > 0 && !slices.ContainsFunc(begun, another) {
		return podEnds(begun)
	}
	slices.Sort(near)
	if near = slices.Compact(near); len(near) > 0 {
		return nil, fmt.Errorf("no %s %s in namespace %s; there are %s", wanted.KindOr("pod or workload"), name, namespace, shortList(near))
	}
	return nil, fmt.Errorf("no %s %s/%s, and none at all in namespace %s", wanted.KindOr("pod or workload"), namespace, name, namespace)
}

// podEnds are the pods that have addresses.
func podEnds(pods []*model.Pod) ([]end, error) {
	var out []end
	var failed error
	for _, p := range pods {
		switch one, err := podEnd(p); {
		case err == nil:
			out = append(out, one)
		case failed == nil:
			failed = err
		}
	}
	if len(out) == 0 {
		return nil, failed
	}
	return out, nil
}

func shortList(names []string) string {
	if len(names) > 8 {
		return strings.Join(names[:8], ", ") + " …"
	}
	return strings.Join(names, ", ")
}

func podEnd(p *model.Pod) (end, error) {
	out := end{pod: p, addresses: policy.PodAddresses(&p.Pod)}
	switch {
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return out, fmt.Errorf("pod %s has ended (%s): it has no address any more", p.Key(), p.Status.Phase)
	case len(out.addresses) == 0:
		return out, fmt.Errorf("pod %s has no address yet (%s)", p.Key(), p.Status.Phase)
	}
	return out, nil
}

// A target is a destination that --to names.
type target struct {
	end
	service string // if it is one
	caveat  string // about how it is reached
	ports   []model.Port
}

// findTargets resolves "namespace/pod[:port]", "svc/[namespace/]name[:port]" or "address:port". A Service is its endpoints.
func findTargets(c *model.Cluster, e *model.Evaluator, namespace, text string) ([]target, error) {
	name, port := splitPort(text)
	if rest, ok := model.CutService(name); ok {
		return serviceTargets(c, e, namespace, rest, port)
	}
	if addr, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		addr = addr.Unmap()
		if e.PodAt(addr) == nil {
			if at := serviceAt(c, addr, port); at != nil {
				targets, err := serviceTargets(c, e, namespace, at.service.Namespace+"/"+at.service.Name, at.port)
				for i := range targets {
					targets[i].caveat = at.caveat
				}
				return targets, err
			}
			if slices.ContainsFunc(c.Addressing.ServiceCIDRs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return nil, fmt.Errorf("%s is in --service-cidr, and no Service that was read has it", addr)
			}
		}
	}
	ends, err := findEnds(c, e, namespace, name)
	if err != nil {
		return nil, err
	}
	var out []target
	var failed error
	for _, to := range ends {
		t := target{end: to}
		if at := atNodePort(c, port); at != nil && to.pod == nil {
			s := at.service
			t.caveat = fmt.Sprintf("%s is a node port of Service %s/%s: if %s is the address of a node, the connection goes to the Service's pods: ask about --to svc/%[2]s/%[3]s", port, s.Namespace, s.Name, to)
		}
		switch {
		case port != "":
			p, err := parsePort(port, to.pod)
			if err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			t.ports = []model.Port{p}
		case to.pod == nil:
			return nil, fmt.Errorf("an address needs a port, as %s", netip.AddrPortFrom(to.addresses[0], 443))
		default:
			if t.ports = c.Ports(to.pod); len(t.ports) == 0 {
				t.ports = []model.Port{model.OtherPort}
			}
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, failed
	}
	return out, nil
}

// splitPort cuts a port off; an IPv6 address with one has brackets.
func splitPort(text string) (name, port string) {
	if _, err := netip.ParseAddr(text); err == nil {
		return text, ""
	}
	i := strings.LastIndex(text, ":")
	if i < 0 {
		return text, ""
	}
	return text[:i], text[i+1:]
}

// parsePort reads a number, or a name that the pod's containers give one.
func parsePort(text string, pod *model.Pod) (model.Port, error) {
	if p, err := model.ParsePort(text); err == nil || pod == nil {
		return p, err
	}
	name, protocol, _ := strings.Cut(text, "/")
	for _, n := range policy.ContainerPorts(&pod.Pod) {
		if n.Name == name && (protocol == "" || strings.EqualFold(n.Protocol.String(), protocol)) {
			return model.Port{Protocol: n.Protocol, Number: n.Port}, nil
		}
	}
	if _, err := strconv.Atoi(name); err == nil {
		return model.ParsePort(text)
	}
	return model.Port{}, fmt.Errorf("no container of pod %s names a port %q", pod.Key(), name)
}

// entry is an address and a port at which a Service is reached.
type entry struct {
	service *corev1.Service
	port    string // the Service's own
	caveat  string
}

// serviceAt finds the Service that is reached at an address: a cluster IP, one of a load balancer, an external IP or, at a node, a node port.
func serviceAt(c *model.Cluster, addr netip.Addr, port string) *entry {
	for i := range c.Services {
		s := &c.Services[i]
		if model.IsExternal(s, addr) {
			return &entry{s, port, externalTraffic(s)}
		}
		if model.HasAddress(s, addr) {
			return &entry{service: s, port: port}
		}
	}
	if !isNode(c, addr) {
		return nil
	}
	return atNodePort(c, port)
}

// atNodePort finds the Service that is reached at a port of the nodes.
func atNodePort(c *model.Cluster, port string) *entry {
	wanted, err := model.ParsePort(port)
	if err != nil {
		return nil
	}
	for i := range c.Services {
		s := &c.Services[i]
		for j := range s.Spec.Ports {
			if sp := &s.Spec.Ports[j]; uint16(sp.NodePort) == wanted.Number && policy.ProtocolOf(&sp.Protocol) == wanted.Protocol {
				return &entry{s, fmt.Sprintf("%d/%s", sp.Port, wanted.Protocol), externalTraffic(s)}
			}
		}
	}
	return nil
}

func has(ips []string, addr netip.Addr) bool {
	return slices.ContainsFunc(ips, func(ip string) bool {
		a, err := netip.ParseAddr(ip)
		return err == nil && a.Unmap() == addr
	})
}

// isNode reports whether an address is a node's, by the nodes or by the pods that run there.
func isNode(c *model.Cluster, addr netip.Addr) bool {
	for i := range c.Nodes {
		for _, a := range c.Nodes[i].Status.Addresses {
			if has([]string{a.Address}, addr) {
				return true
			}
		}
	}
	return slices.ContainsFunc(c.Pods, func(p model.Pod) bool {
		ips := []string{p.Status.HostIP}
		for _, h := range p.Status.HostIPs {
			ips = append(ips, h.IP)
		}
		return has(ips, addr)
	})
}

// externalTraffic is the caveat for connections that arrive at a node.
func externalTraffic(s *corev1.Service) string {
	if s.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		return "externalTrafficPolicy is Local: the source address is kept, and only nodes with a ready pod of the Service answer"
	}
	return "externalTrafficPolicy is Cluster: the node that receives the connection may replace its source address by its own. " +
		"Then ingress policies see the node's address, and not the one that is judged here"
}

func serviceTargets(c *model.Cluster, e *model.Evaluator, namespace, name, port string) ([]target, error) {
	s, err := c.FindService(name, namespace)
	if err != nil {
		return nil, err
	}
	namespace, name = s.Namespace, s.Name
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, fmt.Errorf("svc/%s/%s is another name for %s: give an address of that name", namespace, name, s.Spec.ExternalName)
	}
	var out []target
	found := false
	for j := range s.Spec.Ports {
		sp := &s.Spec.Ports[j]
		number, protocol, _ := strings.Cut(port, "/")
		if port != "" && number != sp.Name && number != strconv.Itoa(int(sp.Port)) || protocol != "" && !strings.EqualFold(protocol, policy.ProtocolOf(&sp.Protocol).String()) {
			continue
		}
		found = true
		for _, b := range c.Backends(s, sp) {
			out = append(out, target{
				end:     end{pod: e.PodAt(b.Address.Addr()), addresses: []netip.Addr{b.Address.Addr()}},
				service: fmt.Sprintf("%s/%s:%d", namespace, name, sp.Port),
				ports:   []model.Port{{Protocol: b.Protocol, Number: b.Address.Port()}},
			})
		}
	}
	switch {
	case !found && port == "":
		return nil, fmt.Errorf("no ports in Service %s/%s", namespace, name)
	case !found:
		return nil, fmt.Errorf("no port %[3]s in Service %[1]s/%[2]s; it has %[4]s", namespace, name, port, servicePorts(s))
	case len(out) == 0:
		return nil, errors.New("no endpoints of Service " + namespace + "/" + name + ": nothing answers, no matter what policies allow (does its selector match a pod, and is one ready?)")
	}
	return out, nil
}

func servicePorts(s *corev1.Service) string {
	var out []string
	for _, p := range s.Spec.Ports {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%s=%d", p.Name, p.Port), "="))
	}
	return strings.Join(out, ", ")
}
