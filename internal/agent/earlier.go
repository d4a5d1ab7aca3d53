package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/node"
)

// awaitPolicyEndpoints waits while an earlier agent's program isolates pods by policies that exist and whose PolicyEndpoints are gone: that
// program goes on judging. It ends when the controller has written them, or when the policies are deleted.
func (a *Agent) awaitPolicyEndpoints(ctx context.Context) error {
	if a.opts.Policies == nil {
		return nil
	}
	isolated, err := a.kernel.EarlierIsolation()
	if err != nil {
		return fmt.Errorf("read what an earlier agent left in force: %w", err)
	}
	for said := ""; ; {
		lost, err := a.lostPolicies(ctx, isolated)
		if ctx.Err() != nil || err == nil && len(lost) == 0 {
			a.metrics.lost.Set(0)
			return nil
		}
		a.metrics.lost.Set(float64(len(lost)))
		if now := fmt.Sprint(lost, err); now != said {
			said = now
			if err != nil {
				a.opts.Log.Error(err, "Cannot find out whether policies lost their PolicyEndpoints; what an earlier agent left stays in force")
			} else {
				a.opts.Log.Info("Policies exist without PolicyEndpoints; what an earlier agent left stays in force until the controller writes them",
					"policies", strings.Join(lost[:min(len(lost), mostLogged)], " "), "count", len(lost))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(deletedPause):
		}
	}
}

// mostLogged is how many names a line has.
const mostLogged = 10

// lostPolicies are policies without a PolicyEndpoint in the namespaces of pods that were isolated and would no longer be.
func (a *Agent) lostPolicies(ctx context.Context, isolated map[netip.Addr][2]bool) (lost []string, err error) {
	var namespaces []string
	a.state.read(func(n *node.Node) { namespaces = n.Unselected(isolated) })
	if len(namespaces) == 0 {
		return nil, nil
	}
	policies, err := a.opts.Policies.List(ctx, namespaces)
	if err != nil {
		return nil, err
	}
	var known map[string]bool
	a.state.read(func(n *node.Node) { known = n.PolicyUIDs() })
	for _, id := range policies {
		if !known[id.UID] {
			lost = append(lost, fmt.Sprintf("%s %s/%s", id.Kind, id.Namespace, id.Name))
		}
	}
	return lost, nil
}
