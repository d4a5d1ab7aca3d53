package agent

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
)

// GuardOf is how a Dataplane treats unknown addresses in a mode.
func GuardOf(mode node.Mode, audit bool) dataplane.Guard {
	switch {
	case mode == node.Standard:
		return dataplane.GuardOff
	case audit:
		return dataplane.GuardAudit
	}
	return dataplane.GuardOn
}

// guardsBoot reports whether the plugin lets no pod start before this agent's policies are in force, as guarded and strict promise.
// Nothing else denies the traffic of a pod while no program is attached: after the node's boot.
func (a *Agent) guardsBoot() bool {
	return a.opts.GuardBoot || GuardOf(a.opts.Mode, a.opts.Audit) == dataplane.GuardOn
}

// errEarlyPod ends the start of a sandbox or container. It does not wait instead: the runtime disconnects a plugin that takes 2 s.
var errEarlyPod = errors.New("this node's network policies are not in force yet; the kubelet retries")

// newSandboxes are those that were made while the plugin was not connected, and have not started a container yet. Their policies must be in
// force before they do.
type newSandboxes struct {
	mu  sync.Mutex
	ids map[string]bool
}

// set replaces the sandboxes by those that there are when the connection is made.
func (s *newSandboxes) set(pods []*api.PodSandbox, containers []*api.Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = map[string]bool{}
	for _, pod := range pods {
		if sb := sandboxOf(pod); sb.Process && len(sb.Addresses) > 0 && !hasStarted(sb.ID, containers) {
			s.ids[sb.ID] = true
		}
	}
}

func (s *newSandboxes) has(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[id]
}

func (s *newSandboxes) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

// CreateContainer makes a sandbox's first container fail until the node is guarded, if the sandbox was made while the
// plugin was not connected.
func (p *Plugin) CreateContainer(ctx context.Context, pod *api.PodSandbox, _ *api.Container) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	return nil, nil, p.checkNewSandbox(ctx, pod)
}

// checkNewSandbox does for a sandbox that was made while the plugin was not connected what RunPodSandbox does for others.
func (p *Plugin) checkNewSandbox(ctx context.Context, pod *api.PodSandbox) error {
	if !p.newSandboxes.has(pod.GetId()) {
		return nil
	}
	if p.a.guardsBoot() && !p.a.applied.isInForce() {
		return errEarlyPod
	}
	s := sandboxOf(pod)
	waiting, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	defer p.a.state.awaitPod(s.Pod)()
	p.awaitPolicies(waiting, s)
	p.newSandboxes.remove(s.ID)
	return nil
}

// guardingRuntimes are the container runtimes that can be made to start no container while the plugin is not connected, with their first
// versions that can.
var guardingRuntimes = map[string]*version.Version{
	"containerd": version.MustParseGeneric("2.2"),
	"crio":       version.MustParseGeneric("1.34"),
}

// canRequirePlugins reports whether a container runtime can be made to start no container while the plugin is not connected.
func canRequirePlugins(name, ver string) bool {
	first := guardingRuntimes[strings.ReplaceAll(strings.ToLower(name), "-", "")]
	v, err := version.ParseGeneric(strings.TrimPrefix(ver, "v"))
	return first != nil && err == nil && v.AtLeast(first)
}

// reportRuntime reports whether pods may start after the node's boot before the plugin is connected, by what the
// runtime can do. Whether it is configured to wait is not known. name is empty if there is no connection.
func (a *Agent) reportRuntime(name, ver string) {
	if !a.guardsBoot() {
		return
	}
	a.metrics.bootGap.Reset()
	if canRequirePlugins(name, ver) {
		return
	}
	if name == "" {
		name = "none"
	}
	a.metrics.bootGap.WithLabelValues(name, ver).Set(1)
}
