package agent

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kidoban/kidoban/internal/node"
)

// DefaultNRISocket is where containerd and CRI-O listen for plugins.
const DefaultNRISocket = "/run/nri/nri.sock"

const (
	// The kubelet writes here where a pod comes from (kubernetes pkg/kubelet/types, ConfigSourceAnnotationKey).
	sourceAnnotation = "kubernetes.io/config.source"
	// The runtime waits for the hook, by default for 2 s, and disconnects a plugin that takes longer.
	hookTimeout = 1500 * time.Millisecond
	// Between attempts to connect to the runtime.
	nriRetry = time.Second
)

// Plugin is an Agent's plugin of the container runtime (https://github.com/containerd/nri). The runtime calls it when a pod has its
// addresses and no container yet, and waits: so a pod's policies are in force before its first instruction.
type Plugin struct {
	a            *Agent
	newSandboxes newSandboxes
	logged       bool // that there is no connection
}

// Plugin returns the Agent's plugin, which the Agent connects to the runtime at Options.NRISocket.
func (a *Agent) Plugin() *Plugin { return &Plugin{a: a} }

// followRuntimeIfAny connects the plugin to the runtime, if there is a socket for it.
func (a *Agent) followRuntimeIfAny(ctx context.Context) {
	if a.opts.NRISocket == "" {
		a.reportRuntime("", "")
		return
	}
	go a.followRuntime(ctx)
}

// followRuntime keeps the plugin connected until the context is done. Without a runtime that calls it, pods are known by the watch alone.
func (a *Agent) followRuntime(ctx context.Context) {
	p := a.Plugin()
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		err := p.serve(ctx)
		a.state.update(ctx, func(now time.Time, n *node.Node) { n.RuntimeGone(now) })
		a.reportRuntime("", "")
		if ctx.Err() == nil && !p.logged {
			p.logged = true
			a.opts.Log.Info("No connection to the container runtime's NRI: a pod's policies are in force a moment after its start, not before",
				"socket", a.opts.NRISocket, "reason", fmt.Sprint(err))
		}
	}, nriRetry)
}

func (p *Plugin) serve(ctx context.Context) error {
	s, err := stub.New(p, stub.WithPluginName("kidoban"), stub.WithPluginIdx("90"), stub.WithSocketPath(p.a.opts.NRISocket),
		stub.WithLogger(nriLogger{p.a.opts.Log.WithName("nri").V(1)}),
		stub.WithOnClose(func() {})) // without one the stub ends the process when the runtime does
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Configure is the runtime's welcome.
func (p *Plugin) Configure(_ context.Context, _, name, version string) (stub.EventMask, error) {
	p.logged = false
	p.a.reportRuntime(name, version)
	p.a.opts.Log.Info("Connected to the container runtime: a pod's policies are in force before its containers start", "socket", p.a.opts.NRISocket,
		"runtime", name, "version", version)
	return 0, nil // the events that there are methods for
}

// Synchronize takes in the sandboxes that there are when the connection is made.
func (p *Plugin) Synchronize(ctx context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	all := make([]node.Sandbox, len(pods))
	for i, s := range pods {
		all[i] = sandboxOf(s)
		if all[i].Process {
			p.a.announceSandbox(s, all[i], hasStarted(s.GetId(), containers))
		}
	}
	p.newSandboxes.set(pods, containers)
	p.a.interfaces.refresh(ctx)
	p.a.state.update(ctx, func(now time.Time, n *node.Node) { n.SyncSandboxes(now, all) })
	return nil, nil
}

// RunPodSandbox puts a pod's policies in force, as far as that can be done in the time that the runtime gives.
func (p *Plugin) RunPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	s := sandboxOf(pod)
	if len(s.Addresses) == 0 {
		return nil
	}
	a := p.a
	if a.guardsBoot() && !a.applied.isInForce() {
		return errEarlyPod
	}
	a.announceSandbox(pod, s, false)
	waiting, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	defer a.state.awaitPod(s.Pod)()
	a.interfaces.refresh(ctx)
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.RunSandbox(now, s) })
	p.awaitPolicies(waiting, s)
	return nil
}

// awaitPolicies waits until a pod's policies are in force, or the context is done.
func (p *Plugin) awaitPolicies(ctx context.Context, s node.Sandbox) {
	a := p.a
	if err := a.waitForPod(ctx, s.Pod); err != nil {
		a.opts.Log.Info("A pod starts before its policies are in force", "pod", s.Pod, "waited", hookTimeout)
		a.metrics.late.Inc()
		return
	}
	// conntrack may have flows of the pod that had the address before.
	if err := a.sweeper.sweepNow(ctx, s.Addresses); err != nil {
		a.opts.Log.Error(err, "A pod starts before the flows that its address had earlier are cut", "pod", s.Pod)
		a.metrics.late.Inc()
	}
}

// StopPodSandbox takes in that a sandbox has stopped.
func (p *Plugin) StopPodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	s := sandboxOf(pod)
	p.newSandboxes.remove(s.ID)
	if p.a.announcer != nil {
		p.a.announcer.end(s.ID)
	}
	p.a.state.update(ctx, func(now time.Time, n *node.Node) { n.StopSandbox(now, s.Pod, s.ID) })
	return nil
}

// RemovePodSandbox is the only event of a sandbox that failed after RunPodSandbox.
func (p *Plugin) RemovePodSandbox(ctx context.Context, pod *api.PodSandbox) error {
	return p.StopPodSandbox(ctx, pod)
}

// waitForPod returns when a pod's entries are in force, or with the context's error. It does not wait for changes that come later: in a storm
// there is always one.
func (a *Agent) waitForPod(ctx context.Context, key types.NamespacedName) error {
	var revision node.Revision
	for {
		well, changed := a.applied.has(0)
		applied := false
		a.state.read(func(n *node.Node) {
			if revision == 0 {
				revision = n.PodRevision(key)
			}
			applied = revision != 0 && n.PodApplied(key, revision)
		})
		if well && applied {
			return nil
		}
		select { // the events that make the pod known are written, too
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// sandboxOf reads what the runtime reports of a sandbox.
func sandboxOf(s *api.PodSandbox) node.Sandbox {
	out := node.Sandbox{
		Pod: types.NamespacedName{Namespace: s.GetNamespace(), Name: s.GetName()},
		UID: types.UID(s.GetUid()), Labels: s.GetLabels(), ID: s.GetId(), Process: s.GetPid() != 0,
	}
	if source := s.GetAnnotations()[sourceAnnotation]; source != "" && source != "api" {
		out.UID = "" // a static pod: the API server has its mirror, which has a UID of its own
	}
	hasNetwork := func(ns *api.LinuxNamespace) bool { return ns.GetType() == "network" && ns.GetPath() != "" }
	if !slices.ContainsFunc(s.GetLinux().GetNamespaces(), hasNetwork) {
		return out // on the host's network
	}
	for _, ip := range s.GetIps() {
		if addr, err := netip.ParseAddr(ip); err == nil {
			out.Addresses = append(out.Addresses, addr.Unmap())
		}
	}
	return out
}

// nriLogger takes the stub's formatted lines.
type nriLogger struct{ logr.Logger }

func (l nriLogger) Debugf(_ context.Context, format string, args ...any) {
	l.V(1).Info(fmt.Sprintf(format, args...))
}
func (l nriLogger) Infof(_ context.Context, format string, args ...any) {
	l.Info(fmt.Sprintf(format, args...))
}
func (l nriLogger) Warnf(_ context.Context, format string, args ...any) {
	l.Info(fmt.Sprintf(format, args...))
}
func (l nriLogger) Errorf(_ context.Context, format string, args ...any) {
	l.Info(fmt.Sprintf(format, args...))
}
