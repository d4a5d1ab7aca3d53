package agent

import (
	"context"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/node"
)

// unseenInterval is how often the network namespaces of pods are searched for interfaces that the dataplane does not see. The kernel does not
// report what becomes of links in other namespaces.
const unseenInterval = 30 * time.Second

// unseenFollower keeps the state up to date with the interfaces that the dataplane does not see, and reports them.
type unseenFollower struct {
	kernel  Interfaces
	state   *state
	metrics *metrics
	log     logr.Logger
	known   []node.UnseenLink
}

func (f *unseenFollower) run(ctx context.Context) {
	tick := time.NewTicker(unseenInterval)
	defer tick.Stop()
	for {
		f.refresh()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// refresh takes in the interfaces that there are now. On an error the previous ones stay.
func (f *unseenFollower) refresh() {
	links, err := f.kernel.ReadUnseen()
	if err != nil {
		f.log.Error(err, "Cannot search pods for interfaces that policies do not apply to; the agent retries")
		return
	}
	var now []node.UnseenLink
	f.state.read(func(n *node.Node) {
		n.SetUnseen(links)
		now = n.Unseen()
	})
	for _, u := range now {
		if !slices.Contains(f.known, u) {
			f.log.Info("Policies do not apply to an interface of a pod: its traffic does not pass the node's network stack", "pod", u.Pod.String(),
				"interface", u.Name, "kind", u.Kind)
		}
	}
	f.known = now
	f.metrics.observeUnseen(now)
}
