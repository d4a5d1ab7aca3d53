package agent

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/stream/client"
)

// Reports are at least reportInterval apart, and so far apart that they take a reportShare of the state's lock at most.
const (
	reportInterval = 100 * time.Millisecond
	reportShare    = 20
	// unseenReportInterval is how often interfaces are reported that no event of a policy or pod comes with.
	unseenReportInterval = 10 * time.Second
)

// report reports which policies are in force, and which interfaces cannot be policed, until the context is done.
func (a *Agent) report(ctx context.Context) {
	type object struct {
		types.NamespacedName
		uid types.UID
	}
	generations := map[object]int64{} // that were reported
	for {
		_, changed := a.applied.has(0)
		begin := time.Now()
		var reports map[types.NamespacedName]node.PolicyReport
		var unseen []node.UnseenLink
		a.state.read(func(n *node.Node) { reports, unseen = n.PolicyReports(), n.Unseen() })
		took := time.Since(begin)
		states := make(map[client.PolicyKey]*stream.PolicyState, len(reports))
		reported := make(map[object]int64, len(reports))
		for name, r := range reports {
			o := object{name, r.UID}
			if reported[o] = r.Generation; r.Pending { // the kernel has the version before
				reported[o] = generations[o]
			}
			key := policyKey(name)
			states[key] = &stream.PolicyState{
				Kind: key.Kind, Namespace: name.Namespace, Name: name.Name, Uid: string(r.UID), Generation: reported[o], Reason: r.Reason,
			}
		}
		generations = reported
		a.opts.Stream.SetPolicies(states)
		a.opts.Stream.SetUnseen(unseenMessages(unseen))
		pace := time.NewTimer(max(reportInterval, reportShare*took))
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
		pace.Stop()
		again := time.NewTimer(unseenReportInterval)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

func unseenMessages(links []node.UnseenLink) []*stream.Unseen {
	out := make([]*stream.Unseen, len(links))
	for i, l := range links {
		out[i] = &stream.Unseen{Uid: string(l.UID), Namespace: l.Pod.Namespace, Name: l.Pod.Name, Interface: l.Name, Kind: l.Kind}
	}
	return out
}
