package dataplane

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// Each pod has shares of the records of cut flows: of served ports, and of peers. A share that is full makes the
// pod's records coarser, and takes nothing from others.
const (
	portShare = 64
	peerShare = 64
)

// revocations are the records that keep the servers of cut flows from opening these again (bpf/maps.h).
//
// A record is the pod's that opened the flow if it is a pod of this node, and otherwise the server's: a pod
// cannot fill the share of another pod of its node. A record of a pod that is gone stays until it expires, or
// until another needs its place.
type revocations struct {
	m     *ebpf.Map
	kinds *ebpf.Variable // bits of the kinds that the map may have
	isPod func(bpf.FilterAddress) bool
	most  int // of all records but those of kind REVOKED_POD, for which there is always room

	mu     sync.Mutex
	has    map[bpf.FilterRevokedKey]bool
	counts map[bpf.FilterAddress]*revocationCount
	total  int // without those of kind REVOKED_POD
	bits   uint32
}

type revocationCount struct{ ports, peers int }

func newRevocations(m *ebpf.Map, kinds *ebpf.Variable, most uint32, isPod func(bpf.FilterAddress) bool) *revocations {
	return &revocations{
		m: m, kinds: kinds, isPod: isPod, most: int(most),
		has: map[bpf.FilterRevokedKey]bool{}, counts: map[bpf.FilterAddress]*revocationCount{},
	}
}

// hasOpening reports whether a flow of the protocol begins with a packet that is like no other of its packets.
func hasOpening(p policy.Protocol) bool { return p == policy.TCP || p == policy.SCTP }

// keysOf are the keys of the records that each hold off a flow's server, the most precise one first. There are
// none where no packet of the server opens the flow from its side: echo replies open nothing, and what goes to the
// node's own address does not come to the hook.
func keysOf(f *conntrack.Flow, isPod func(bpf.FilterAddress) bool) []bpf.FilterRevokedKey {
	server, client := encodeAddr(f.Reply.Source.Addr()), encodeAddr(f.Reply.Destination.Addr())
	precise := bpf.FilterRevokedKey{Protocol: uint8(f.Protocol)}
	if f.Protocol.HasPorts() { // the program reads no ports of some protocols of which conntrack does
		precise.Port = f.Reply.Source.Port()
	}
	peer := server
	switch {
	case f.Protocol == policy.ICMP || f.Protocol == policy.ICMPv6:
		return nil
	case isPod(client):
		precise.Pod, precise.Kind = client, bpf.FilterRevokedKindREVOKED_CLIENT
	case isPod(server):
		precise.Pod, precise.Kind = server, bpf.FilterRevokedKindREVOKED_SERVER
		peer = client
	default:
		return nil
	}
	coarsest := bpf.FilterRevokedKey{Pod: precise.Pod, Protocol: uint8(policy.UDP), Kind: bpf.FilterRevokedKindREVOKED_POD}
	if hasOpening(f.Protocol) {
		// Only a flow that conntrack has lost sends such packets: a coarser record does little harm.
		coarsest.Protocol = uint8(policy.TCP)
		return []bpf.FilterRevokedKey{precise, coarsest}
	}
	coarser := coarsest
	coarser.Peer, coarser.Kind = peer, bpf.FilterRevokedKindREVOKED_PEER
	return []bpf.FilterRevokedKey{precise, coarser, coarsest}
}

// add records flows.
func (r *revocations) add(flows []conntrack.Flow, value bpf.FilterRevocation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	swept := false
	for i := range flows {
		if err := r.addOne(keysOf(&flows[i], r.isPod), value, &swept); err != nil {
			return err
		}
	}
	return nil
}

// addOne writes the first of these records for which there is room, or renews one that is there. swept is whether
// expired records have been removed already.
func (r *revocations) addOne(keys []bpf.FilterRevokedKey, value bpf.FilterRevocation, swept *bool) error {
	for i := len(keys) - 1; i >= 0; i-- {
		if r.has[keys[i]] {
			return r.put(keys[i], value)
		}
	}
	for _, k := range keys {
		if !r.hasRoom(k) && !*swept {
			*swept = true
			if err := r.sweep(); err != nil {
				return err
			}
		}
		if !r.hasRoom(k) {
			continue
		}
		if err := r.put(k, value); err != nil {
			return err
		}
		if k.Kind == bpf.FilterRevokedKindREVOKED_POD {
			return r.removeCovered(k)
		}
		return nil
	}
	if len(keys) > 0 {
		return &MapFullError{Map: bpf.FilterMapRevoked, Max: r.m.MaxEntries()}
	}
	return nil
}

// hasRoom reports whether the share of the record's pod has room for it.
func (r *revocations) hasRoom(k bpf.FilterRevokedKey) bool {
	c := r.counts[k.Pod]
	switch k.Kind {
	case bpf.FilterRevokedKindREVOKED_POD:
		return r.m.MaxEntries() > uint32(len(r.has))
	case bpf.FilterRevokedKindREVOKED_PEER:
		return r.total < r.most && (c == nil || c.peers < peerShare)
	default:
		return r.total < r.most && (c == nil || c.ports < portShare)
	}
}

func (r *revocations) put(k bpf.FilterRevokedKey, value bpf.FilterRevocation) error {
	if bit := uint32(1) << k.Kind; r.bits&bit == 0 {
		if err := r.kinds.Set(r.bits | bit); err != nil {
			return fmt.Errorf("set %s of the BPF program: %w", bpf.FilterVarRevokedKinds, err)
		}
		r.bits |= bit
	}
	if err := patiently(func() error { return r.m.Put(&k, &value) }); err != nil {
		return fmt.Errorf("write a cut flow of %v to BPF map %s: %w", decodeAddr(k.Pod), bpf.FilterMapRevoked, err)
	}
	if !r.has[k] {
		r.has[k] = true
		r.count(k, 1)
	}
	return nil
}

func (r *revocations) remove(k bpf.FilterRevokedKey) error {
	if err := r.m.Delete(&k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete a cut flow of %v from BPF map %s: %w", decodeAddr(k.Pod), bpf.FilterMapRevoked, err)
	}
	delete(r.has, k)
	r.count(k, -1)
	return nil
}

func (r *revocations) count(k bpf.FilterRevokedKey, n int) {
	c := r.counts[k.Pod]
	if c == nil {
		c = &revocationCount{}
		r.counts[k.Pod] = c
	}
	switch k.Kind {
	case bpf.FilterRevokedKindREVOKED_POD:
		return
	case bpf.FilterRevokedKindREVOKED_PEER:
		c.peers += n
	default:
		c.ports += n
	}
	r.total += n
	if *c == (revocationCount{}) {
		delete(r.counts, k.Pod)
	}
}

// removeCovered removes the records that one of a pod makes superfluous.
func (r *revocations) removeCovered(by bpf.FilterRevokedKey) error {
	for k := range r.has {
		if k.Pod == by.Pod && k.Kind != by.Kind && hasOpening(policy.Protocol(k.Protocol)) == (policy.Protocol(by.Protocol) == policy.TCP) {
			if err := r.remove(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes records that have expired and, if the map is full of others, those of pods that are gone.
func (r *revocations) sweep() error {
	now, err := events.Now()
	if err != nil {
		return err
	}
	var expired, gone []bpf.FilterRevokedKey
	err = readBatches(r.m, func(keys []bpf.FilterRevokedKey, values []bpf.FilterRevocation) error {
		for i, k := range keys {
			switch {
			case values[i].Until <= now:
				expired = append(expired, k)
			case !r.isPod(k.Pod):
				gone = append(gone, k)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read BPF map %s: %w", bpf.FilterMapRevoked, err)
	}
	for _, k := range expired {
		if err := r.remove(k); err != nil {
			return err
		}
	}
	if r.total < r.most && len(r.has) < int(r.m.MaxEntries()) {
		return nil
	}
	for _, k := range gone {
		if err := r.remove(k); err != nil {
			return err
		}
	}
	return nil
}

// inherit takes over the records of an older generation that have not expired. Those of a form that this program
// does not have are left.
func (r *revocations) inherit(old *ebpf.Map) error {
	if old.Type() != r.m.Type() || old.KeySize() != r.m.KeySize() || old.ValueSize() != r.m.ValueSize() {
		return nil
	}
	now, err := events.Now()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	swept := false
	// Not one by one: that begins again, and ends too early, where the agent of the other generation still cuts.
	return readBatches(old, func(keys []bpf.FilterRevokedKey, values []bpf.FilterRevocation) error {
		for i, k := range keys {
			if values[i].Until <= now {
				continue
			}
			if err := r.addOne(coarsened(k), values[i], &swept); err != nil {
				return err
			}
		}
		return nil
	})
}

// coarsened are the keys of the records that each hold off what this one does, that one first.
func coarsened(k bpf.FilterRevokedKey) []bpf.FilterRevokedKey {
	if k.Kind == bpf.FilterRevokedKindREVOKED_POD {
		return []bpf.FilterRevokedKey{k}
	}
	all := bpf.FilterRevokedKey{Pod: k.Pod, Protocol: uint8(policy.UDP), Kind: bpf.FilterRevokedKindREVOKED_POD}
	if hasOpening(policy.Protocol(k.Protocol)) {
		all.Protocol = uint8(policy.TCP)
	}
	return []bpf.FilterRevokedKey{k, all}
}
