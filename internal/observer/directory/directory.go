package directory

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/workload"
)

// kept is how long pods and Services are known after they ended: agents push what they have with a delay.
const kept = 2 * time.Hour

// Directory is safe for use by several goroutines. The zero value is not: see New.
type Directory struct {
	mu         sync.RWMutex
	pods       map[types.UID]*pod
	addresses  map[netip.Addr][]*holding // by their beginning
	nodes      map[string]*node
	nodeOf     map[netip.Addr]string
	services   map[netip.Addr][]service
	namespaces map[string]map[string]string // labels
	// outside are ends that are no pods, so that reports share them.
	outside map[netip.Addr]*observerapi.End
	changed chan struct{} // closed when an address becomes known
}

// maxOutside bounds the addresses that Find makes ends of. Beyond it all are forgotten.
const maxOutside = 100_000

// pod is what is known about a pod.
type pod struct {
	namespace, name string
	serviceAccount  string
	node            string
	hostNetwork     bool
	versions        []version // by time
	holdings        []*holding
	ended           time.Time // zero while it runs
}

// version is what a pod was from a time on. Only what flows show makes another version.
type version struct {
	since time.Time
	end   observerapi.End                 // without address
	by    map[netip.Addr]*observerapi.End // by address
}

// holding is a time in which a pod had an address.
type holding struct {
	pod          *pod
	since, until time.Time // until is zero while it has it
}

type node struct {
	addresses []netip.Addr
	ends      map[netip.Addr]*observerapi.End
}

type service struct {
	name         string // namespace/name
	since, until time.Time
}

// New returns an empty directory.
func New() *Directory {
	return &Directory{
		pods: map[types.UID]*pod{}, addresses: map[netip.Addr][]*holding{}, nodes: map[string]*node{}, nodeOf: map[netip.Addr]string{},
		services: map[netip.Addr][]service{}, namespaces: map[string]map[string]string{}, outside: map[netip.Addr]*observerapi.End{},
		changed: make(chan struct{}),
	}
}

// Changed returns a channel that is closed when a pod's address becomes known.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.changed
}

// SetPod adds or changes a pod.
func (d *Directory) SetPod(p *corev1.Pod, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	of, known := d.pods[p.UID]
	if !known {
		of = &pod{namespace: p.Namespace, name: p.Name, serviceAccount: p.Spec.ServiceAccountName}
		d.pods[p.UID] = of
	}
	of.node, of.hostNetwork = p.Spec.NodeName, p.Spec.HostNetwork
	since := now
	if !known { // the observer may have started after the pod
		since = p.CreationTimestamp.Time
	}
	d.setVersion(of, d.endOf(p), since)
	if p.Spec.HostNetwork {
		return
	}
	for _, addr := range addressesOf(p) {
		d.hold(of, addr, holdingSince(p, known, now))
	}
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		of.finish(finished(p, now))
	}
}

// holdingSince is when a pod can have got the address that is in its status: no earlier than it was created, and, if its status was seen
// without an address before, no earlier than a short time ago.
func holdingSince(p *corev1.Pod, known bool, now time.Time) time.Time {
	since := p.CreationTimestamp.Time
	if delayed := now.Add(-statusDelay); known && delayed.After(since) {
		return delayed
	}
	return since
}

// statusDelay is how long a pod may use an address before its status has it.
const statusDelay = 15 * time.Second

// DeletePod notes the end of a pod that was deleted.
func (d *Directory) DeletePod(uid types.UID, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if of := d.pods[uid]; of != nil {
		of.finish(now)
	}
}

func (p *pod) finish(at time.Time) {
	if p.ended.IsZero() || at.Before(p.ended) {
		p.ended = at
	}
	for _, h := range p.holdings {
		if h.until.IsZero() || at.Before(h.until) {
			h.until = at
		}
	}
}

// hold notes that a pod has an address.
func (d *Directory) hold(of *pod, addr netip.Addr, since time.Time) {
	for _, h := range d.addresses[addr] {
		if h.pod == of {
			return
		}
	}
	h := &holding{pod: of, since: since}
	for _, before := range d.addresses[addr] {
		if before.until.IsZero() && before.since.Before(since) { // its end is not known yet
			before.until = since
		} else if before.until.After(since) && !before.until.After(since.Add(kept)) {
			h.since = before.until
		}
	}
	of.holdings = append(of.holdings, h)
	d.addresses[addr] = append(d.addresses[addr], h)
	slices.SortStableFunc(d.addresses[addr], func(a, b *holding) int { return a.since.Compare(b.since) })
	close(d.changed)
	d.changed = make(chan struct{})
}

// timeError is by how much the times of two agents may differ after they were corrected: a push takes its time.
const timeError = time.Second

// Learn notes an address that an agent has reported for a pod. It counts only for pods that run on the agent's node. since is the time of a packet;
// the node of its other end may report the same packet with an earlier time.
func (d *Directory) Learn(addr netip.Addr, uid types.UID, nodeName string, since time.Time) {
	d.mu.RLock()
	of := d.pods[uid]
	news := of != nil && of.node == nodeName && !of.hostNetwork && !slices.ContainsFunc(d.addresses[addr], func(h *holding) bool { return h.pod == of })
	d.mu.RUnlock()
	if !news {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, isNode := d.nodeOf[addr]; !isNode {
		since = since.Add(-timeError)
		if created := of.versions[0].since; since.Before(created) {
			since = created
		}
		d.hold(of, addr, since)
	}
}

// SetNamespace adds or changes a namespace's labels.
func (d *Directory) SetNamespace(name string, labels map[string]string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if maps.Equal(d.namespaces[name], labels) {
		return
	}
	d.namespaces[name] = maps.Clone(labels)
	for _, of := range d.pods {
		if of.namespace == name && len(of.versions) > 0 {
			end := of.versions[len(of.versions)-1].end
			end.NamespaceLabels = d.namespaces[name]
			d.setVersion(of, end, now)
		}
	}
}

// DeleteNamespace forgets a namespace.
func (d *Directory) DeleteNamespace(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.namespaces, name)
}

// SetNode adds or changes a node.
func (d *Directory) SetNode(n *corev1.Node) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetNode(n.Name)
	of := &node{ends: map[netip.Addr]*observerapi.End{}}
	for _, a := range n.Status.Addresses {
		addr, err := netip.ParseAddr(a.Address)
		if err != nil { // a name
			continue
		}
		addr = addr.Unmap()
		of.addresses = append(of.addresses, addr)
		of.ends[addr] = &observerapi.End{Node: n.Name, IsNode: true, Address: addr}
		d.nodeOf[addr] = n.Name
	}
	d.nodes[n.Name] = of
}

// DeleteNode forgets a node.
func (d *Directory) DeleteNode(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forgetNode(name)
}

func (d *Directory) forgetNode(name string) {
	if of := d.nodes[name]; of != nil {
		for _, addr := range of.addresses {
			delete(d.nodeOf, addr)
		}
		delete(d.nodes, name)
	}
}

// Nodes returns the names of all nodes, in ascending order.
func (d *Directory) Nodes() []string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.Sorted(maps.Keys(d.nodes))
}

// SetService adds or changes a Service.
func (d *Directory) SetService(s *corev1.Service, now time.Time) {
	name := s.Namespace + "/" + s.Name
	var current []netip.Addr
	for _, text := range serviceAddresses(s) {
		if addr, err := netip.ParseAddr(text); err == nil {
			current = append(current, addr.Unmap())
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endService(name, current, now)
	for _, addr := range current {
		if !slices.ContainsFunc(d.services[addr], func(s service) bool { return s.name == name && s.until.IsZero() }) {
			d.services[addr] = append(d.services[addr], service{name: name, since: s.CreationTimestamp.Time})
		}
	}
}

// DeleteService notes the end of a Service.
func (d *Directory) DeleteService(namespace, name string, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endService(namespace+"/"+name, nil, now)
}

func (d *Directory) endService(name string, except []netip.Addr, now time.Time) {
	for addr, all := range d.services {
		for i := range all {
			if all[i].name == name && all[i].until.IsZero() && !slices.Contains(except, addr) {
				all[i].until = now
			}
		}
	}
}

// Forget forgets what ended long ago. It is called about once a minute.
func (d *Directory) Forget(now time.Time) {
	limit := now.Add(-kept)
	isOld := func(until time.Time) bool { return !until.IsZero() && until.Before(limit) }
	d.mu.Lock()
	defer d.mu.Unlock()
	for uid, of := range d.pods {
		if isOld(of.ended) {
			delete(d.pods, uid)
			continue
		}
		for len(of.versions) > 1 && of.versions[1].since.Before(limit) {
			of.versions = of.versions[1:]
		}
	}
	for addr, all := range d.addresses {
		all = slices.DeleteFunc(all, func(h *holding) bool { return isOld(h.until) })
		if d.addresses[addr] = all; len(all) == 0 {
			delete(d.addresses, addr)
		}
	}
	for addr, all := range d.services {
		all = slices.DeleteFunc(all, func(s service) bool { return isOld(s.until) })
		if d.services[addr] = all; len(all) == 0 {
			delete(d.services, addr)
		}
	}
}

func (d *Directory) setVersion(of *pod, end observerapi.End, since time.Time) {
	if n := len(of.versions); n > 0 && equalEnds(&of.versions[n-1].end, &end) {
		return
	}
	of.versions = append(of.versions, version{since: since, end: end, by: map[netip.Addr]*observerapi.End{}})
}

func equalEnds(a, b *observerapi.End) bool {
	return a.Namespace == b.Namespace && a.Pod == b.Pod && a.Node == b.Node && *a.Workload == *b.Workload && maps.Equal(a.Labels, b.Labels) &&
		maps.Equal(a.NamespaceLabels, b.NamespaceLabels) && slices.Equal(a.NamedPorts, b.NamedPorts)
}

func (d *Directory) endOf(p *corev1.Pod) observerapi.End {
	w := workload.Of(p)
	end := observerapi.End{
		Namespace: p.Namespace, Pod: p.Name, UID: string(p.UID), Workload: &agentapi.Workload{Kind: w.Kind, Name: w.Name},
		Labels: maps.Clone(p.Labels), NamespaceLabels: d.namespaces[p.Namespace], Node: p.Spec.NodeName,
	}
	for _, containers := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.Name != "" {
					protocol := string(port.Protocol)
					if protocol == "" {
						protocol = string(corev1.ProtocolTCP)
					}
					end.NamedPorts = append(end.NamedPorts, observerapi.NamedPort{Name: port.Name, Protocol: protocol, Number: uint16(port.ContainerPort)})
				}
			}
		}
	}
	return end
}

func addressesOf(p *corev1.Pod) (out []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// finished is when the last container of a pod ended.
func finished(p *corev1.Pod, now time.Time) time.Time {
	var last time.Time
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.FinishedAt.After(last) {
			last = t.FinishedAt.Time
		}
	}
	if last.IsZero() {
		return now
	}
	return last
}

func serviceAddresses(s *corev1.Service) []string {
	all := append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ExternalIPs...)
	if len(s.Spec.ClusterIPs) == 0 {
		all = append(all, s.Spec.ClusterIP)
	}
	for _, i := range s.Status.LoadBalancer.Ingress {
		all = append(all, i.IP)
	}
	return all
}
