package dataplane

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The hook's priorities that generations use, the first free one. They lie between NF_IP_PRI_NAT_DST (-100) and NF_IP_PRI_FILTER
// (0) of include/uapi/linux/netfilter_ipv4.h, away from the round numbers that others use: a BPF program cannot share its own.
const (
	firstPriority = -77
	lastPriority  = firstPriority + 31
)

// netfilterDefrag is BPF_F_NETFILTER_IP_DEFRAG of include/uapi/linux/bpf.h: the hook keeps defragmentation on by itself.
const netfilterDefrag link.NetfilterAttachFlags = 1

var families = map[string]link.NetfilterProtocolFamily{
	"link_ipv4": link.NetfilterProtoIPv4,
	"link_ipv6": link.NetfilterProtoIPv6,
}

// ErrSuperseded says that another agent on this node has taken over. It is in force, and this one has nothing to do any more.
var ErrSuperseded = errors.New("a later generation of the dataplane has taken over: another agent runs on this node")

// Attach makes this generation the judge: it is attached for both families and pinned, and only then are all others detached
// and unpinned. For a moment both judge, and a packet needs both. After an error the others are as they were.
//
// Once attached, Attach puts back what somebody removed: pins, and connection tracking. Where a later generation has taken over
// it does nothing and returns ErrSuperseded.
//
// The network namespace is that of the calling thread.
func (d *Dataplane) Attach() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()

	others, err := generations(d.opts.BPFFS)
	if err != nil {
		return err
	}
	if d.links != nil && slices.ContainsFunc(others, func(dir string) bool { return dir > d.dir }) {
		return ErrSuperseded
	}
	if err := EnableConntrack(); err != nil {
		return err
	}
	if d.links == nil {
		if err := d.attach(); err != nil {
			return err
		}
		d.dir = successor(d.opts.BPFFS, others)
	}
	if err := d.pin(); err != nil {
		return err
	}
	return d.takeOver(others)
}

func (d *Dataplane) attach() error {
	links := map[string]link.Link{}
	for name, family := range families {
		l, err := attachFirstFree(d.objs.Kidoban, family)
		if err != nil {
			for _, l := range links {
				err = errors.Join(err, l.Close())
			}
			return err
		}
		links[name] = l
	}
	d.links = links
	return nil
}

func attachFirstFree(p *ebpf.Program, family link.NetfilterProtocolFamily) (link.Link, error) {
	for priority := int32(firstPriority); ; priority++ {
		l, err := link.AttachNetfilter(link.NetfilterOptions{
			Program:        p,
			ProtocolFamily: family,
			Hook:           link.NetfilterInetForward,
			Priority:       priority,
			NetfilterFlags: netfilterDefrag,
		})
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.EBUSY) || priority == lastPriority {
			return nil, fmt.Errorf("attach to the forward hook of family %d at priority %d: %w", family, priority, err)
		}
	}
}

// takeOver ends the other generations.
func (d *Dataplane) takeOver(others []string) error {
	for _, dir := range others {
		if dir == d.dir {
			continue
		}
		if err := d.inheritRevoked(dir); err != nil {
			return err
		}
		if err := remove(dir); err != nil {
			return fmt.Errorf("remove an older generation: %w", err)
		}
		d.opts.Log.Info("Took over from another generation", "pins", dir)
	}
	return nil
}
