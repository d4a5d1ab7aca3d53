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
)

// reportPolicies reports which policies are in force until the context is done.
func (a *Agent) reportPolicies(ctx context.Context) {
	type object struct {
		types.NamespacedName
		uid types.UID
	}
	generations := map[object]int64{} // that were reported
	for {
		_, changed := a.applied.has(0)
		begin := time.Now()
		var reports map[types.NamespacedName]node.PolicyReport
		a.state.read(func(n *node.Node) { reports = n.PolicyReports() })
		took := time.Since(begin)
		states := make(map[client.PolicyKey]*stream.PolicyState, len(reports))
		reported := make(map[object]int64, len(reports))
		for name, r := range reports {
			o := object{name, r.UID}
			if reported[o] = r.Generation; r.Pending { // the kernel has the version before
				reported[o] = generations[o]
			}
			key := client.PolicyKey{Kind: stream.PolicyState_POLICY_ENDPOINT, Namespace: name.Namespace, Name: name.Name}
			states[key] = &stream.PolicyState{
				Kind: key.Kind, Namespace: name.Namespace, Name: name.Name, Uid: string(r.UID), Generation: reported[o], Reason: r.Reason,
			}
		}
		generations = reported
		a.opts.Stream.SetPolicies(states)
		pace := time.NewTimer(max(reportInterval, reportShare*took))
		select {
		case <-ctx.Done():
		case <-pace.C:
		}
		pace.Stop()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
