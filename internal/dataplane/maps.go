package dataplane

import (
	"errors"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// DenyAll is a set that has no row and never will: a pod under it is denied everything in that direction, by
// rule 0. It is for a pod whose real set could not be written.
const DenyAll compiler.SetID = ^compiler.SetID(0)

// kernelMaps are the maps that compiler.Maps describes. bpf/maps.h defines them.
type kernelMaps struct {
	pods       *kernelMap[bpf.FilterAddress, bpf.FilterPod]
	addresses  *kernelMap[bpf.FilterAddress, uint32]
	networks   *kernelMap[bpf.FilterNetworkKey, uint32]
	rows       *kernelMap[bpf.FilterRowKey, bpf.FilterRow]
	ports      *kernelMap[bpf.FilterPortKey, bpf.FilterDecision]
	interfaces *kernelMap[uint32, bpf.FilterInterface]
	domains    *kernelMap[bpf.FilterDomainKey, bpf.FilterDomain]
	resolvers  *kernelMap[bpf.FilterResolverKey, uint32]
}

func newKernelMaps(m *bpf.FilterMaps, w *writeCount) kernelMaps {
	return kernelMaps{
		pods:       newKernelMap(m.Pods, bpf.FilterMapPods, &podForm, w),
		addresses:  newKernelMap(m.Addresses, bpf.FilterMapAddresses, &addressForm, w),
		networks:   newKernelMap(m.Networks, bpf.FilterMapNetworks, &networkForm, w),
		rows:       newKernelMap(m.Rows, bpf.FilterMapRows, &rowForm, w),
		ports:      newKernelMap(m.Ports, bpf.FilterMapPorts, &portForm, w),
		interfaces: newKernelMap(m.Interfaces, bpf.FilterMapInterfaces, &interfaceForm, w),
		domains:    newKernelMap(m.Domains, bpf.FilterMapDomains, &domainForm, w),
		resolvers:  newKernelMap(m.Resolvers, bpf.FilterMapResolvers, &resolverForm, w),
	}
}

// read reads all maps, and calls between after each batch of entries. What could be read is returned also
// with an error.
func (m *kernelMaps) read(between func() error) (*Contents, error) {
	var c Contents
	var errs [8]error
	c.Pods, errs[0] = m.pods.read(between)
	c.Addresses, errs[1] = m.addresses.read(between)
	c.Networks, errs[2] = m.networks.read(between)
	c.Rows, errs[3] = m.rows.read(between)
	c.Ports, errs[4] = m.ports.read(between)
	c.Interfaces, errs[5] = m.interfaces.read(between)
	c.Domains, errs[6] = m.domains.read(between)
	c.Resolvers, errs[7] = m.resolvers.read(between)
	return &c, errors.Join(errs[:]...)
}

func (m *kernelMaps) target() target {
	return target{
		pods: m.pods, addresses: m.addresses, networks: m.networks, rows: m.rows, ports: m.ports, interfaces: m.interfaces,
		domains: m.domains, resolvers: m.resolvers,
	}
}

// Usage is how full each map is. It is cheap: the numbers are kept while writing, and corrected by Sync.
func (d *Dataplane) Usage() []MapUsage {
	m := &d.maps
	return []MapUsage{
		m.pods.usage(), m.addresses.usage(), m.networks.usage(), m.rows.usage(), m.ports.usage(), m.interfaces.usage(),
		m.domains.usage(), m.resolvers.usage(),
	}
}
