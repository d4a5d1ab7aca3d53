package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/policy"
)

// Port is a port of a protocol. Number 0 stands for a port that no rule names.
type Port struct {
	Protocol policy.Protocol
	Number   uint16
}

// OtherPort is a port that no rule names.
var OtherPort = Port{Protocol: policy.TCP}

// String is "80", "53/UDP" or "other".
func (p Port) String() string {
	name := strconv.Itoa(int(p.Number))
	if p.Number == 0 {
		name = "other"
	}
	if p.Protocol == policy.TCP {
		return name
	}
	return name + "/" + p.Protocol.String()
}

// Compare orders ports by number.
func (p Port) Compare(q Port) int {
	return cmp.Or(cmp.Compare(p.Number, q.Number), cmp.Compare(p.Protocol, q.Protocol))
}

// ParsePort reads "80", "80/TCP" or "53/udp".
func ParsePort(s string) (Port, error) {
	number, protocol, _ := strings.Cut(s, "/")
	p, err := ParseProtocol(protocol)
	if err != nil {
		return Port{}, err
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Port{}, fmt.Errorf("%q is not a port: give a number from 1 to 65535, as 80 or 53/UDP", s)
	}
	return Port{Protocol: p, Number: uint16(n)}, nil
}

// ParseProtocol reads a protocol's name in any case; empty is TCP.
func ParseProtocol(s string) (policy.Protocol, error) {
	name := corev1.Protocol(strings.ToUpper(s))
	if p := policy.ProtocolOf(&name); p != 0 {
		return p, nil
	}
	return 0, fmt.Errorf("%q is not a protocol: give TCP, UDP or SCTP", s)
}

// Ports that a pod's containers declare and Services send to, in order.
func (c *Cluster) Ports(pod *Pod) []Port {
	var out []Port
	for _, p := range containerPorts(&pod.Pod) {
		out = append(out, Port{policy.ProtocolOf(&p.Protocol), uint16(p.ContainerPort)})
	}
	for i := range c.Services {
		s := &c.Services[i]
		if s.Namespace != pod.Namespace || len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			continue
		}
		for j := range s.Spec.Ports {
			if n := targetPort(&s.Spec.Ports[j], &pod.Pod); n != 0 {
				out = append(out, Port{policy.ProtocolOf(&s.Spec.Ports[j].Protocol), n})
			}
		}
	}
	slices.SortFunc(out, Port.Compare)
	return slices.Compact(out)
}

// containerPorts are all ports of the containers that serve.
func containerPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var out []corev1.ContainerPort
	for i := range pod.Spec.Containers {
		out = append(out, pod.Spec.Containers[i].Ports...)
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c.Ports...)
		}
	}
	return out
}

// targetPort is the number of a Service's port at a pod, or 0 where the pod does not name it.
func targetPort(port *corev1.ServicePort, pod *corev1.Pod) uint16 {
	if port.TargetPort.StrVal == "" {
		return uint16(cmp.Or(port.TargetPort.IntVal, port.Port))
	}
	for _, n := range policy.ContainerPorts(pod) {
		if n.Name == port.TargetPort.StrVal && n.Protocol == policy.ProtocolOf(&port.Protocol) {
			return n.Port
		}
	}
	return 0
}
