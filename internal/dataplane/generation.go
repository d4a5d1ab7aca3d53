package dataplane

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
)

// The hook's priorities that generations use, the first free one. They lie between NF_IP_PRI_NAT_DST (-100)
// and NF_IP_PRI_FILTER (0) of include/uapi/linux/netfilter_ipv4.h, away from the round numbers that others
// use: a BPF program cannot share its own.
const (
	firstPriority = -77
	lastPriority  = firstPriority + 31
)

// netfilterDefrag is BPF_F_NETFILTER_IP_DEFRAG of include/uapi/linux/bpf.h: the hook keeps defragmentation on
// by itself.
const netfilterDefrag link.NetfilterAttachFlags = 1

// hook is where a program of a generation is attached.
type hook struct {
	hook    link.NetfilterInetHook
	family  link.NetfilterProtocolFamily
	program func(*bpf.FilterObjects) *ebpf.Program
	// needed reports whether it has to be attached; nil: always. The caller holds attachMu.
	needed func(*Dataplane) bool
}

func (h *hook) isNeeded(d *Dataplane) bool { return h.needed == nil || h.needed(d) }

// hooks are all of them, by the name of the link's pin.
var hooks = map[string]hook{
	"link_ipv4":          {hook: link.NetfilterInetForward, family: link.NetfilterProtoIPv4, program: forward},
	"link_ipv6":          {hook: link.NetfilterInetForward, family: link.NetfilterProtoIPv6, program: forward},
	"link_local_in_ipv4": {hook: link.NetfilterInetLocalIn, family: link.NetfilterProtoIPv4, program: localIn, needed: (*Dataplane).needsLocal},
	"link_local_in_ipv6": {hook: link.NetfilterInetLocalIn, family: link.NetfilterProtoIPv6, program: localIn, needed: (*Dataplane).needsLocal},

	"link_local_out_ipv4": {hook: link.NetfilterInetLocalOut, family: link.NetfilterProtoIPv4, program: localOut, needed: (*Dataplane).needsLocalOut},
	"link_local_out_ipv6": {hook: link.NetfilterInetLocalOut, family: link.NetfilterProtoIPv6, program: localOut, needed: (*Dataplane).needsLocalOut},
}

func forward(objs *bpf.FilterObjects) *ebpf.Program { return objs.Kidoban }

func localIn(objs *bpf.FilterObjects) *ebpf.Program { return objs.KidobanLocalIn }

func localOut(objs *bpf.FilterObjects) *ebpf.Program { return objs.KidobanLocalOut }

// ErrSuperseded means that another agent on this node has taken over. Its generation judges, and this one has
// nothing left to do.
var ErrSuperseded = errors.New("a later generation of the dataplane has taken over: another agent runs on this node")

// Attach makes this generation the judge: it is attached for both families and pinned, and only then are all
// others detached and unpinned. For a moment both judge, and a packet needs both. After an error the others
// are as they were.
//
// The network namespace is that of the calling thread.
func (d *Dataplane) Attach() error {
	_, err := d.Heal()
	return err
}

// Heal attaches the generation as Attach does. If it was attached, Heal reattaches detached links, restores
// pins and switches connection tracking on again. It returns the number of links that were detached:
// meanwhile packets of that family passed without being judged, and the flows that they opened are in
// conntrack. It does as much of this as it can, and returns all errors. If a later generation has taken over,
// Heal does nothing and returns ErrSuperseded.
func (d *Dataplane) Heal() (detached int, err error) {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()

	others, err := generations(d.opts.BPFFS)
	if err != nil {
		return 0, err
	}
	if d.isSuperseded(others) {
		return 0, ErrSuperseded
	}
	untracked := conntrack.Enable()
	if d.links == nil {
		if untracked != nil {
			return 0, untracked
		}
		if err := d.attach(); err != nil {
			return 0, err
		}
		d.dir = successor(d.opts.BPFFS, others)
	} else {
		if detached, err = d.reattach(); err != nil {
			return detached, errors.Join(untracked, err)
		}
		if err := d.followLocal(); err != nil {
			return detached, errors.Join(untracked, err)
		}
	}
	if err := d.pin(); err != nil {
		return detached, errors.Join(untracked, err)
	}
	return detached, errors.Join(untracked, d.takeOver(others))
}

// isSuperseded reports whether one of these generations is later than this one.
func (d *Dataplane) isSuperseded(others []string) bool {
	return d.links != nil && slices.ContainsFunc(others, func(dir string) bool { return dir > d.dir })
}

// checkLatest returns ErrSuperseded if a later generation has taken over.
func (d *Dataplane) checkLatest() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()

	all, err := generations(d.opts.BPFFS)
	if err == nil && d.isSuperseded(all) {
		err = ErrSuperseded
	}
	return err
}

func (d *Dataplane) attach() error {
	links := map[string]link.Link{}
	for name, h := range hooks {
		if !h.isNeeded(d) {
			continue
		}
		l, err := d.attachFirstFree(h)
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

// followLocal attaches the hooks of packets to and from the node itself while they are needed, and detaches them afterwards.
func (d *Dataplane) followLocal() error {
	for name, h := range hooks {
		l, attached := d.links[name]
		switch {
		case attached == h.isNeeded(d):
		case attached:
			if err := errors.Join(l.Unpin(), l.Detach(), l.Close()); err != nil {
				return fmt.Errorf("detach %s: %w", name, err)
			}
			delete(d.links, name)
		default:
			l, err := d.attachFirstFree(h)
			if err != nil {
				return err
			}
			d.links[name] = l
		}
	}
	return nil
}

// reattach attaches detached links again. The kernel does not report whether a link is detached, but whether
// its priority is in use.
func (d *Dataplane) reattach() (detached int, err error) {
	for name, old := range d.links {
		info, err := old.Info()
		if err != nil {
			return detached, fmt.Errorf("ask the kernel about %s: %w", name, err)
		}
		l, err := d.attachAt(hooks[name], info.Netfilter().Priority)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return detached, err
		}
		detached++
		d.links[name] = l
		if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return detached, fmt.Errorf("unpin a detached link: %w", err)
		}
		if err := old.Close(); err != nil {
			return detached, err
		}
	}
	return detached, nil
}

func (d *Dataplane) attachFirstFree(h hook) (link.Link, error) {
	for priority := int32(firstPriority); ; priority++ {
		l, err := d.attachAt(h, priority)
		if err == nil || !errors.Is(err, unix.EBUSY) || priority == lastPriority {
			return l, err
		}
	}
}

func (d *Dataplane) attachAt(h hook, priority int32) (link.Link, error) {
	l, err := link.AttachNetfilter(link.NetfilterOptions{
		Program:        h.program(&d.objs),
		ProtocolFamily: h.family,
		Hook:           h.hook,
		Priority:       priority,
		NetfilterFlags: netfilterDefrag,
	})
	if err != nil {
		return nil, fmt.Errorf("attach to hook %d of family %d at priority %d: %w", h.hook, h.family, priority, err)
	}
	return l, nil
}

// takeOver removes the other generations.
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
