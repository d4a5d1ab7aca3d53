package compiler

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// choices makes what is drawn follow the fuzzer's bytes, as long as there are any.
type choices struct {
	bytes []byte
	rest  *rand.PCG
}

func (c *choices) Uint64() uint64 {
	if len(c.bytes) == 0 {
		return c.rest.Uint64()
	}
	var b [8]byte
	n := copy(b[:], c.bytes[:min(2, len(c.bytes))])
	c.bytes = c.bytes[n:]
	// IntN takes the high bits for small numbers and Int31n the low ones
	v := uint64(binary.LittleEndian.Uint16(b[:]))
	return v<<48 | v<<32 | v<<16 | v
}

// mostChanges is of one input: what goes wrong does after few, and inputs stay small.
const mostChanges = 8

// FuzzCompiler changes a world as the bytes tell it to, and compares the maps with the reference evaluator.
func FuzzCompiler(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("groups come and go"))
	f.Add([]byte{0, 0, 255, 255, 1, 2, 3, 4, 0x80, 0x80, 7, 7, 7, 7, 0xfe, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 32*mostChanges {
			return
		}
		w := &world{rng: rand.New(&choices{data, rand.NewPCG(uint64(len(data)), 3)}), groups: map[policy.GroupKey]map[netip.Prefix]int{}, pods: map[string]PodSpec{}}
		c := New()
		mirror := cloneMaps(c.Maps())
		for range 1 + len(data)/32 {
			flows := w.flows(4)
			before := decideAll(mirror, flows)
			w.mutate(c)
			changes := c.Commit()
			after := decideAll(c.Maps(), flows)
			changes.steps(mirror, func() { checkBetween(t, mirror, flows, before, after) })
			checkEqual(t, "mirror", mirror, c.Maps())
			checkAgainstReference(t, c, w, flows)
			collected := c.Collect()
			collected.steps(mirror, func() { checkBetween(t, mirror, flows, after, after) })
			if t.Failed() {
				return
			}
		}
		checkNothingLeft(t, c, w)
	})
}
