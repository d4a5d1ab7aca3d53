package agent

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
)

// The flow log has names of learned addresses only, and reads all names at most once a second.
func TestNamesOfTheFlowLog(t *testing.T) {
	k := newFakeKernel()
	one, two := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")
	k.learned = map[netip.Addr][]compiler.PatternID{one: {1, 2}}
	k.names = []dataplane.LearnedName{
		{Name: "b.example", Pattern: 1, Addresses: map[netip.Addr]time.Time{one: {}}}, {Name: "a.example", Pattern: 2, Addresses: map[netip.Addr]time.Time{one: {}}},
		{Name: "a.example", Pattern: 1, Addresses: map[netip.Addr]time.Time{one: {}}},
	}
	c := nameCache{kernel: k}
	now := time.Now()
	check := func(addr netip.Addr, want string, reads int) {
		t.Helper()
		if got := fmt.Sprint(c.of(addr, now)); got != want || k.called("LearnedNames") != reads {
			t.Errorf("%s: %s after %d reads, want %s after %d", addr, got, k.called("LearnedNames"), want, reads)
		}
	}
	check(two, "[]", 0) // not learned
	check(one, "[a.example b.example]", 1)
	check(one, "[a.example b.example]", 1)
	k.learned[two] = []compiler.PatternID{1}
	k.names = append(k.names, dataplane.LearnedName{Name: "c.example", Pattern: 1, Addresses: map[netip.Addr]time.Time{two: {}}})
	check(two, "[]", 1)
	now = now.Add(nameCachePause)
	check(one, "[a.example b.example]", 1)
	check(two, "[c.example]", 2)
	check(one, "[a.example b.example]", 2)
	k.names = k.names[2:]
	now = now.Add(nameCacheAge)
	check(one, "[a.example]", 3)
}
