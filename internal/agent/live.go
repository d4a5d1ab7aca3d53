package agent

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// Enforcing an audited policy cuts the live connections that it denies. liveDenials finds these connections beforehand.

const (
	// liveFresh is how long an answer is good: each reads conntrack.
	liveFresh = 5 * time.Second
	// liveExamples is how many connections are listed for a policy.
	liveExamples = 10
)

type liveDenials struct {
	mu   sync.Mutex
	at   time.Time
	last map[agentapi.PolicyRef]*agentapi.LiveDenials // nil: there is no answer to remember
}

// of returns, for each audited policy, the live connections of this node's pods that would be cut if all audited policies were enforced, and
// that this policy denies.
func (l *liveDenials) of(s *sweeper, now time.Time) (map[agentapi.PolicyRef]*agentapi.LiveDenials, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil && now.Sub(l.at) <= liveFresh {
		return l.last, nil
	}
	var err error
	l.last, err = s.wouldCut()
	l.at = now
	return l.last, err
}

// wouldCut reads the live flows of the pods that audited policies select.
func (s *sweeper) wouldCut() (map[agentapi.PolicyRef]*agentapi.LiveDenials, error) {
	out := map[agentapi.PolicyRef]*agentapi.LiveDenials{}
	var audited []netip.Addr
	s.state.read(func(n *node.Node) {
		for addr, p := range n.Maps().Pods {
			if p.AuditSets != [2]compiler.SetID{} {
				audited = append(audited, addr)
			}
		}
	})
	if len(audited) == 0 {
		return out, nil
	}
	own, err := s.kernel.NodeAddresses()
	if err != nil {
		return nil, err
	}
	for flows, err := range s.kernel.Flows(audited...) {
		if err != nil {
			return nil, err
		}
		names := s.readNames(flows)
		s.state.read(func(n *node.Node) {
			j := judgement{n.Maps(), own, names}
			for i := range flows {
				j.addWouldCut(out, n, &flows[i])
			}
		})
	}
	return out, nil
}

// addWouldCut adds a flow to each policy that would deny it, unless it was allowed for the sake of another.
func (j *judgement) addWouldCut(out map[agentapi.PolicyRef]*agentapi.LiveDenials, n *node.Node, live *conntrack.Flow) {
	f := live.Opened()
	if len(live.Masters) > 0 || j.own[f.Source] || j.own[f.Destination] || f.Source == f.Destination || j.denies(f) {
		return
	}
	for _, d := range policy.Directions {
		set := j.maps.Pods[f.Self(d)].AuditSets[d]
		if set == 0 {
			continue
		}
		names := j.names[f.Peer(d)]
		v := j.maps.LookupSet(set, d, f, names)
		if v.Action != policy.Deny {
			continue
		}
		unnamed := v.Names != [2]uint8{} && !j.maps.HasPattern(set, names)
		for _, p := range denying(n, set, v) {
			addLive(out, node.PolicyRef(p.ID), agentapi.LiveConnection{
				Pod: podAt(n, f.Self(d)), Direction: d.String(), Peer: f.Peer(d), PeerPod: podAt(n, f.Peer(d)), Protocol: f.Protocol.String(), Port: f.Port, Unnamed: unnamed,
			})
		}
	}
}

// podAt is namespace/name of the pod that has an address; empty for others.
func podAt(n *node.Node, addr netip.Addr) string {
	if p, ok := n.PodAt(addr); ok {
		return p.Namespace + "/" + p.Name
	}
	return ""
}

// denying are the audited policies of a set that a denial comes from: that of its rule, or all that isolate.
func denying(n *node.Node, set compiler.SetID, v compiler.Decision) []*policy.Policy {
	if ref, ok := n.Rule(v.Rule); ok && v.Rule != 0 {
		return slices.DeleteFunc([]*policy.Policy{ref.Policy}, func(p *policy.Policy) bool { return !p.Audited })
	}
	all, direction := n.Set(set)
	return slices.DeleteFunc(slices.Clone(all), func(p *policy.Policy) bool { return !p.Audited || !p.Isolates[direction] })
}

func addLive(out map[agentapi.PolicyRef]*agentapi.LiveDenials, ref agentapi.PolicyRef, c agentapi.LiveConnection) {
	l := out[ref]
	if l == nil {
		l = &agentapi.LiveDenials{}
		out[ref] = l
	}
	l.Connections++
	if c.Unnamed {
		l.Unnamed++
	}
	if len(l.Examples) < liveExamples {
		l.Examples = append(l.Examples, c)
	}
}
