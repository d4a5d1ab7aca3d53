package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/policy"
)

var flannel = inspect.Tunnels{Ports: []uint16{8472}, Devices: []uint32{7}, Ends: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}}

// Tunnels are in force before the program is attached, and follow the node's devices.
func TestTunnelsAreFollowed(t *testing.T) {
	run(t, func(k *fakeKernel) { k.tunnels = flannel }, func(r *running) {
		if set := r.kernel.tunnelsSet; len(set) != 1 || !set[0].Equal(&flannel) {
			t.Fatalf("set %v", set)
		}
		r.kernel.fail("SetTunnels", errors.New("no room"))
		r.kernel.tunnels = inspect.Tunnels{}
		r.kernel.tunnelsChanged()
		r.kernel.tunnelsChanged()
		r.kernel.tunnelsChanged()
		r.sleep(time.Second)
		if set := r.kernel.tunnelsSet; len(set) != 2 || !set[1].Empty() {
			t.Errorf("set %v, want no tunnels once, after a failure", set)
		}
	})
}

// A flow of a pod to the end of a tunnel, which conntrack has from before, is cut when the tunnel is found.
func TestFlowsToANewTunnelAreCut(t *testing.T) {
	run(t, nil, func(r *running) {
		web := pod("web", "10.0.0.1")
		r.add(web)
		flow := func(source, destination string, port uint16) conntrack.Flow {
			f := conntrack.Flow{Protocol: policy.UDP}
			f.Original = conntrack.Tuple{Source: netip.AddrPortFrom(netip.MustParseAddr(source), 999), Destination: netip.AddrPortFrom(netip.MustParseAddr(destination), port)}
			f.Reply = conntrack.Tuple{Source: f.Original.Destination, Destination: f.Original.Source}
			return f
		}
		stay := []conntrack.Flow{flow("10.0.0.1", "192.0.2.2", 53), flow("10.0.0.1", "192.0.2.3", 8472), flow("192.0.2.2", "10.0.0.1", 8472)}
		r.kernel.mu.Lock()
		r.kernel.flows = append([]conntrack.Flow{flow("10.0.0.1", "192.0.2.2", 8472)}, stay...)
		r.kernel.tunnels = flannel
		r.kernel.mu.Unlock()
		r.kernel.tunnelsChanged()
		r.sleep(time.Second)
		if live := r.kernel.live(); len(live) != len(stay) || live[0].Original != stay[0].Original {
			t.Errorf("live flows %v", live)
		}
	})
}
