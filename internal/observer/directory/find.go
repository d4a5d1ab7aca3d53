package directory

import (
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Pod returns a pod of a node, with an address of it, as it was at a time. It returns nil if no such pod is known. The caller
// must not change what it gets.
func (d *Directory) Pod(uid types.UID, nodeName string, addr netip.Addr, at time.Time) *observerapi.End {
	d.mu.Lock()
	defer d.mu.Unlock()
	of := d.pods[uid]
	if of == nil || of.node != nodeName {
		return nil
	}
	return of.at(addr, at)
}

// Find returns what had an address at a time: a pod, a node, or else the address alone, with isKnown false. The caller must not
// change what it gets.
func (d *Directory) Find(addr netip.Addr, at time.Time) (end *observerapi.End, isKnown bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := d.nodeOf[addr]; ok {
		return d.nodes[name].ends[addr], true
	}
	all := d.addresses[addr]
	for i := len(all) - 1; i >= 0; i-- {
		if h := all[i]; !h.since.After(at) {
			// Shortly after its end packets still go to it. Later the address may belong to a pod that is not known yet.
			if !h.until.IsZero() && at.Sub(h.until) > afterEnd {
				break
			}
			return h.pod.at(addr, at), true
		}
	}
	if end = d.outside[addr]; end == nil {
		if len(d.outside) >= maxOutside {
			clear(d.outside)
		}
		end = &observerapi.End{Address: addr}
		d.outside[addr] = end
	}
	return end, false
}

// afterEnd is how long after a pod's end packets to its address are said to be to it.
const afterEnd = time.Minute

// Service returns the Service, as namespace/name, that had an address at a time; empty if none had.
func (d *Directory) Service(addr netip.Addr, at time.Time) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := d.services[addr]
	for i := len(all) - 1; i >= 0; i-- {
		if s := &all[i]; !s.since.After(at) && (s.until.IsZero() || at.Before(s.until)) {
			return s.name
		}
	}
	return ""
}

// at returns the pod as it was at a time.
func (p *pod) at(addr netip.Addr, at time.Time) *observerapi.End {
	i := len(p.versions) - 1
	for i > 0 && p.versions[i].since.After(at) {
		i--
	}
	v := &p.versions[i]
	end, ok := v.by[addr]
	if !ok {
		c := v.end
		c.Address = addr
		end = &c
		if len(v.by) < maxPodAddresses {
			v.by[addr] = end
		}
	}
	return end
}

// maxPodAddresses bounds the addresses of one pod for which ends are kept.
const maxPodAddresses = 16

// IsPod reports whether a pod of a ServiceAccount runs on a node.
func (d *Directory) IsPod(uid types.UID, nodeName, namespace, serviceAccount string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	of := d.pods[uid]
	return of != nil && of.ended.IsZero() && of.node == nodeName && of.namespace == namespace && of.serviceAccount == serviceAccount
}

// IsNodeAddress reports whether a node has an address.
func (d *Directory) IsNodeAddress(nodeName string, addr netip.Addr) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.nodeOf[addr] == nodeName && nodeName != ""
}

// NodeOf returns the node of a pod; empty if the pod is not known.
func (d *Directory) NodeOf(uid types.UID) string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if of := d.pods[uid]; of != nil {
		return of.node
	}
	return ""
}
