package agent

import (
	"context"
	"slices"

	"github.com/containerd/nri/pkg/api"

	"github.com/kidoban/kidoban/internal/node"
)

// announceSandbox announces a sandbox if it may be new to the controller.
func (a *Agent) announceSandbox(pod *api.PodSandbox, s node.Sandbox, started bool) {
	if a.announcer == nil || len(s.Addresses) == 0 {
		return
	}
	var reused, isKnown bool
	a.state.read(func(n *node.Node) {
		reused, isKnown = n.HadOtherOwner(s.Pod, s.Addresses), n.HasStatusAddresses(s.Pod, s.Addresses)
	})
	if !isKnown { // by its status
		a.announcer.announce(pod.GetUid(), s, reused, started)
	}
}

// StartContainer holds the first container of a pod until the pod's addresses are known.
func (p *Plugin) StartContainer(ctx context.Context, pod *api.PodSandbox, _ *api.Container) error {
	if err := p.checkNewSandbox(ctx, pod); err != nil { // the container may have been made while the plugin was not connected
		return err
	}
	if p.a.announcer == nil {
		return nil
	}
	return p.a.announcer.hold(ctx, pod.GetId())
}

// hasStarted reports whether a container of a sandbox has started.
func hasStarted(sandbox string, containers []*api.Container) bool {
	return slices.ContainsFunc(containers, func(c *api.Container) bool {
		return c.GetPodSandboxId() == sandbox && c.GetState() != api.ContainerState_CONTAINER_CREATED && c.GetState() != api.ContainerState_CONTAINER_UNKNOWN
	})
}

// waitForMembers returns when groups have addresses in force in the kernel, or with the context's error.
func (a *Agent) waitForMembers(ctx context.Context, m membership) error {
	var revision node.Revision
	isReached := false
	for {
		ok, changed := a.applied.has(revision)
		if isReached && ok {
			return nil
		}
		if !isReached {
			a.state.read(func(n *node.Node) {
				if isReached = n.HasMembers(m.addresses, m.groups, m.left); isReached {
					revision = n.Revision()
				}
			})
			if isReached {
				continue
			}
		}
		select { // the events that make it so are written, too
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}
