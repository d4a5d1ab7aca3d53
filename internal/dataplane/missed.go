package dataplane

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// MissReason is why an address that an answer led to was not learned, or is not valid any more.
type MissReason uint32

// The reasons.
const (
	MissOtherName = MissReason(bpf.FilterMissMISS_OTHER_NAME) // no policy has the name that was asked for
	MissUntrusted = MissReason(bpf.FilterMissMISS_UNTRUSTED)  // the resolver is not trusted
	MissLimit     = MissReason(bpf.FilterMissMISS_LIMIT)      // there was no room for the address, or for the name
	MissExpired   = MissReason(bpf.FilterMissMISS_EXPIRED)    // its time is over
	MissHint      = MissReason(bpf.FilterMissMISS_HINT)       // it is a hint of an HTTPS record
)

// Miss is the last answer that led to an address which was not learned from it, or the name under which it has expired.
type Miss struct {
	Reason MissReason
	Name   string
	At     time.Time
}

// MissOf returns the Miss of an address. It reports false where no such answer is known: the program keeps the latest ones.
func (d *Dataplane) MissOf(addr netip.Addr) (Miss, bool) {
	var v bpf.FilterMissedAddress
	if err := d.objs.Missed.Lookup(encodeAddr(addr), &v); err != nil {
		return Miss{}, false
	}
	now, err := bootSeconds()
	if err != nil {
		return Miss{}, false
	}
	return Miss{
		Reason: MissReason(v.Why), Name: decodeNameText(v.Text[:], v.TextAt), At: time.Now().Add(time.Duration(int64(v.At)-int64(now)) * time.Second),
	}, true
}

// ValidPatternsOf are the patterns that an address was learned under and whose time is not over.
func (d *Dataplane) ValidPatternsOf(addr netip.Addr) []compiler.PatternID {
	now, err := bootSeconds()
	if err != nil {
		return nil
	}
	return d.patternsOf(addr, func(until uint32) bool { return until > now })
}

// noteExpired notes the addresses whose places were removed, under their names.
func (d *Dataplane) noteExpired(places map[bpf.FilterPlaceKey]bpf.FilterPlace, now uint32) error {
	if len(places) == 0 {
		return nil
	}
	byOwner := map[uint64][]bpf.FilterAddress{}
	for k, v := range places {
		byOwner[k.Owner] = append(byOwner[k.Owner], v.Address)
	}
	return readBatches(d.objs.Names, func(_ []bpf.FilterPlaceKey, values []bpf.FilterName) error {
		for i := range values {
			v := &values[i]
			for _, a := range byOwner[v.Name] {
				miss := bpf.FilterMissedAddress{At: now, Why: bpf.FilterMissMISS_EXPIRED, TextAt: v.TextAt, Text: v.Text}
				if err := d.objs.Missed.Update(a, &miss, ebpf.UpdateAny); err != nil {
					return fmt.Errorf("write %v to BPF map %s: %w", decodeAddr(a), bpf.FilterMapMissed, err)
				}
			}
		}
		return nil
	})
}
