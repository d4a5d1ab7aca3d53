package status

import (
	"fmt"
	"io"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// liveExamples is how many connections are listed.
const liveExamples = 10

// addLive sums up what nodes report of the connections that enforcing the policy would cut.
func (p *Policy) addLive(object metav1.Object, kind string, reports map[string]*report) {
	ref := agentapi.PolicyRef{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName()}
	for _, node := range slices.Sorted(maps.Keys(reports)) {
		on := agentapi.FindPolicy(reports[node].policies, ref)
		if on == nil || on.Live == nil {
			continue
		}
		if p.Live == nil {
			p.Live = &agentapi.LiveDenials{}
		}
		p.Live.Connections += on.Live.Connections
		p.Live.Unnamed += on.Live.Unnamed
		more := min(len(on.Live.Examples), liveExamples-len(p.Live.Examples))
		p.Live.Examples = append(p.Live.Examples, on.Live.Examples[:more]...)
	}
}

// writeLive writes which connections enforcing an audited policy would cut.
func writeLive(out io.Writer, p command.Paint, live *agentapi.LiveDenials) {
	if live == nil {
		return
	}
	if live.Connections == 0 {
		fmt.Fprintln(out, "\nEnforcing it would cut no live connection.")
		return
	}
	connections, lead := "connections", "lead"
	if live.Connections == 1 {
		connections = "connection"
	}
	fmt.Fprintf(out, "\n%s", p.Text(command.Yellow, fmt.Sprintf("Enforcing it would cut %d live %s", live.Connections, connections)))
	if live.Unnamed > 0 {
		if live.Unnamed == 1 {
			lead = "leads"
		}
		fmt.Fprintf(out, "; %d %s to addresses without a known name, and would be allowed by name only after the pod resolves the name again", live.Unnamed, lead)
	}
	fmt.Fprintln(out, ":")
	t := &command.Table{Paint: p}
	t.Head("POD", "", "PEER", "PORT", "NAME")
	for _, c := range live.Examples {
		arrow, peer, name := "→", c.Peer.String(), ""
		if c.Direction == "Ingress" {
			arrow = "←"
		}
		if c.PeerPod != "" {
			peer = c.PeerPod
		}
		if c.Unnamed {
			name = "not known"
		}
		t.Add(command.Plain(c.Pod, arrow, peer, fmt.Sprintf("%d %s", c.Port, c.Protocol), name)...)
	}
	t.Write(out)
	if more := live.Connections - len(live.Examples); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
}
