package status

import (
	"net/netip"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
)

func example() *Status {
	s := &Status{Controller: "2/2 ready", Denied: 7, Policies: []Policy{{Namespace: "shop", Name: "default-deny", Generation: 3, Resolved: "True", Groups: 1, InForce: 1, SlowestSeconds: 0.14,
		Nodes: []NodePolicy{{Node: "n1", State: agentapi.StateInForce, Generation: 3, Pods: 2, LatencySeconds: 0.14}, {Node: "n2", State: agentapi.StatePending, WaitingFor: []string{"shop/g-1"}}}}}}
	n := Node{Name: "n1", Agent: "agent-a", Ready: true, Pods: 5, Kernel: "6.12.0"}
	s.usage(&n, &agentapi.Node{Version: "v1.2.3", Drift: 2, BootGap: "containerd 2.1.4", FailClosedAddresses: 1, Maps: []agentapi.MapUse{{Map: "pods", Entries: 81, Max: 100}, {Map: "rules", Entries: 80, Max: 100}, {Map: "none"}}})
	s.Nodes = append(s.Nodes, n, Node{Name: "n2", Kernel: "6.12.0", Error: "no agent runs there"})
	s.Unseen = []UnseenInterface{{"shop", "web", agentapi.Interface{Name: "net1", Kind: "macvlan"}}}
	return s
}

func TestText(t *testing.T) {
	var out strings.Builder
	write(&out, false, example())
	if want := `Controller: 2/2 ready.  Agents: 1/2 nodes.  Policies: 0/1 in force everywhere.  Denied in the last 10m: 7.

NODE   AGENT     READY   VERSION   RESTARTS   PODS   AUDIT   DRIFT   KERNEL
n1     agent-a   yes     v1.2.3    0          5      0       2       6.12.0
n2     -         no      -         0          0      0       0       6.12.0

NAMESPACE   POLICY         GENERATION   RESOLVED   GROUPS   NODES
shop        default-deny   3            True       1        1/2 in force, slowest 140 ms

Interfaces that policies do not apply to:
  pod shop/web: net1 (macvlan)

Nodes where pods may start after a boot before the agent does, with their container runtimes:
  n1: containerd 2.1.4

Needs action:
  node n1: 1 addresses of pods are denied all traffic: their policies could not be written into the kernel's maps
  node n1: the kernel's map pods holds 81 entries of 100 at most
`; out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestPolicyText(t *testing.T) {
	var out strings.Builder
	writePolicy(&out, false, &example().Policies[0], []string{"node n2: no agent runs there"})
	if want := `NetworkPolicy shop/default-deny, generation 3: resolved True, 1 groups, 1/2 in force, slowest 140 ms

NODE   STATE     GENERATION   PODS   LATENCY   WAITING FOR
n1     InForce   3            2      140 ms    -
n2     Pending   -            0      -         shop/g-1

needs action: node n2: no agent runs there
`; out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestANodeWhoseRecordsDoNotReachTheObserver(t *testing.T) {
	for name, tc := range map[string]struct {
		observer *agentapi.ObserverUse
		attends  int
	}{
		"no observer is installed": {nil, 0},
		"connected":                {&agentapi.ObserverUse{Streams: 1, Lost: 7}, 0},
		"not connected":            {&agentapi.ObserverUse{}, 1},
	} {
		s := &Status{}
		s.usage(&Node{Name: "n1"}, &agentapi.Node{Observer: tc.observer})
		if len(s.Attention) != tc.attends {
			t.Errorf("%s: %q", name, s.Attention)
		}
	}
}

// An audited policy's connections are announced before it is enforced.
func TestLiveConnectionsText(t *testing.T) {
	live := func(pod, direction, peer, peerPod string, unnamed bool) agentapi.LiveConnection {
		return agentapi.LiveConnection{Pod: pod, Direction: direction, Peer: netip.MustParseAddr(peer), PeerPod: peerPod, Protocol: "TCP", Port: 443, Unnamed: unnamed}
	}
	for _, tc := range []struct {
		name string
		live *agentapi.LiveDenials
		want string
	}{
		{"not audited", nil, ""},
		{"none", &agentapi.LiveDenials{}, "\nEnforcing it would cut no live connection.\n"},
		{"one", &agentapi.LiveDenials{Connections: 1, Examples: []agentapi.LiveConnection{live("shop/web", "Egress", "192.0.2.1", "", false)}}, `
Enforcing it would cut 1 live connection:
POD            PEER        PORT      NAME
shop/web   →   192.0.2.1   443 TCP
`},
		{"more than are listed", &agentapi.LiveDenials{Connections: 12, Unnamed: 2, Examples: []agentapi.LiveConnection{
			live("shop/web", "Egress", "192.0.2.1", "", true), live("shop/db", "Ingress", "10.0.0.9", "other/job", false),
		}}, `
Enforcing it would cut 12 live connections; 2 lead to addresses without a known name, and would be allowed by name only after the pod resolves the name again:
POD            PEER        PORT      NAME
shop/web   →   192.0.2.1   443 TCP   not known
shop/db    ←   other/job   443 TCP
and 10 more
`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			writeLive(&out, false, tc.live)
			if out.String() != tc.want {
				t.Errorf("%q\nwant\n%q", out.String(), tc.want)
			}
		})
	}
}

// What nodes report adds up, with a few examples of all.
func TestLiveConnectionsOfAllNodes(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}
	on := func(connections, unnamed, examples int) *report {
		ref := agentapi.PolicyRef{Kind: agentapi.KindNetworkPolicy, Namespace: "shop", Name: "web"}
		return &report{policies: []agentapi.Policy{{PolicyRef: ref, Live: &agentapi.LiveDenials{
			Connections: connections, Unnamed: unnamed, Examples: make([]agentapi.LiveConnection, examples),
		}}}}
	}
	p := Policy{Audited: true}
	p.addLive(np, agentapi.KindNetworkPolicy, map[string]*report{"n1": on(12, 3, 10), "n2": on(4, 1, 4), "n3": {}})
	if p.Live == nil || p.Live.Connections != 16 || p.Live.Unnamed != 4 || len(p.Live.Examples) != liveExamples {
		t.Errorf("%+v", p.Live)
	}
	p = Policy{Audited: true}
	if p.addLive(np, agentapi.KindNetworkPolicy, map[string]*report{"n3": {}}); p.Live != nil {
		t.Errorf("%+v, though no node has answered about it", p.Live)
	}
}
