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
)

// DefaultNRISocket is where containerd and CRI-O listen for plugins.
const DefaultNRISocket = "/run/nri/nri.sock"

const (
	// The kubelet says here where it has a pod from (kubernetes pkg/kubelet/types, ConfigSourceAnnotationKey).
	sourceAnnotation = "kubernetes.io/config.source"
	// The runtime waits for the hook, by default for 2 s, and disconnects a plugin that takes longer.
	hookTimeout = 1500 * time.Millisecond
	// Between attempts to connect to the runtime.
	nriRetry = time.Second
)

// nri is a plugin of the container runtime (https://github.com/containerd/nri). The runtime calls it when a pod has its
// addresses and no container yet, and waits: so a pod's policies are in force before its first instruction.
type nri struct {
	a    *Agent
	told bool // that there is no connection
}

// followRuntime keeps the plugin connected until the context is done. Without a runtime that can be asked, the watch of
// pods is what there is.
func (a *Agent) followRuntime(ctx context.Context) {
	n := &nri{a: a}
	wait.UntilWithContext(ctx, func(ctx context.Context) {
		err := n.serve(ctx)
		a.mu.Lock()
		a.state.runtime = false
		a.mu.Unlock()
		if ctx.Err() == nil && !n.told {
			n.told = true
			a.opts.Log.Info("No connection to the container runtime's NRI: a pod's policies are in force a moment after its start, not before",
				"socket", a.opts.NRISocket, "reason", fmt.Sprint(err))
		}
	}, nriRetry)
}

func (n *nri) serve(ctx context.Context) error {
	s, err := stub.New(n, stub.WithPluginName("kidoban"), stub.WithPluginIdx("90"), stub.WithSocketPath(n.a.opts.NRISocket),
		stub.WithLogger(nriLogger{n.a.opts.Log.WithName("nri").V(1)}),
		stub.WithOnClose(func() {})) // without one the stub ends the process when the runtime does
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// Configure is the runtime's welcome.
func (n *nri) Configure(context.Context, string, string, string) (stub.EventMask, error) {
	n.told = false
	n.a.opts.Log.Info("Connected to the container runtime: a pod's policies are in force before its containers start", "socket", n.a.opts.NRISocket)
	return 0, nil // the events that there are methods for
}

// Synchronize takes in the pods that there are when the connection is made: those that started or stopped while there was none.
func (n *nri) Synchronize(ctx context.Context, sandboxes []*api.PodSandbox, _ []*api.Container) ([]*api.ContainerUpdate, error) {
	n.a.refreshInterfaces(ctx)
	n.a.update(ctx, func(st *state) { st.synchronize(sandboxes) })
	return nil, nil
}

// RunPodSandbox puts a pod's policies in force, as far as that can be done in the time that the runtime gives.
func (n *nri) RunPodSandbox(ctx context.Context, s *api.PodSandbox) error {
	if len(sandboxAddresses(s)) == 0 {
		return nil
	}
	a, key := n.a, sandboxKey(s)
	patience, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	a.refreshInterfaces(ctx)
	a.update(ctx, func(st *state) { st.runSandbox(s) })
	var since uint64
	err := wait.PollUntilContextCancel(patience, time.Millisecond, true, func(context.Context) (bool, error) {
		return a.judges(key, &since), nil
	})
	if err != nil {
		a.opts.Log.Info("A pod starts before its policies are in force", "pod", key, "waited", hookTimeout)
		a.metrics.late.Inc()
	}
	return nil
}

// StopPodSandbox forgets what RunPodSandbox was told.
func (n *nri) StopPodSandbox(ctx context.Context, s *api.PodSandbox) error {
	n.a.update(ctx, func(st *state) { st.deleteSandbox(sandboxKey(s), s.GetId()) })
	return nil
}

// RemovePodSandbox is all that the runtime says of a sandbox that failed after RunPodSandbox.
func (n *nri) RemovePodSandbox(ctx context.Context, s *api.PodSandbox) error {
	return n.StopPodSandbox(ctx, s)
}

// judges reports whether a pod's entries are in the kernel. since is kept between calls: the change of the state with which all is known
// that they are made of, or 0. What changes later, and in a storm something always does, is not waited for.
func (a *Agent) judges(key types.NamespacedName, since *uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ns := a.state.namespaces[key.Namespace]; ns == nil || !ns.known {
		*since = 0
		return false
	}
	if *since == 0 {
		*since = a.told
	}
	return a.inForce.Load() && a.landed >= *since && a.failure.Load() == nil && a.state.judges(key)
}

func (s *state) synchronize(sandboxes []*api.PodSandbox) {
	s.runtime = true
	there, processes := map[string]bool{}, map[string]bool{}
	living := map[types.NamespacedName][]*api.PodSandbox{}
	for _, sb := range sandboxes {
		there[sb.GetId()], processes[sb.GetId()] = true, sb.GetPid() != 0
		if sb.GetPid() != 0 && len(sandboxAddresses(sb)) > 0 { // one that has stopped has no process
			living[sandboxKey(sb)] = append(living[sandboxKey(sb)], sb)
		}
	}
	for key, all := range living {
		// Several may have a name, of pods that were deleted by force: the API server knows the last.
		last, obj := len(all)-1, s.lastSeen(key)
		for i, sb := range all {
			if obj != nil && sb.GetUid() == string(obj.UID) {
				last = i
			}
		}
		var former []sandbox
		for i, sb := range all {
			if i != last {
				former = append(former, newSandbox(sb))
			}
		}
		s.takeSandbox(all[last], former)
	}
	for key, sb := range s.sandboxes {
		for _, known := range append(slices.Clone(sb.former), sb) {
			if !there[known.id] || known.process && !processes[known.id] {
				s.deleteSandbox(key, known.id)
			}
		}
	}
}

func (s *state) runSandbox(sb *api.PodSandbox) {
	before := s.sandboxes[sandboxKey(sb)]
	former := slices.DeleteFunc(slices.Clone(before.former), func(f sandbox) bool { return f.id == sb.GetId() })
	if s.runtime && before.id != "" && before.id != sb.GetId() { // nobody has said that it has stopped
		former = append(former, sandbox{id: before.id, process: before.process, addresses: before.addresses})
	}
	s.takeSandbox(sb, former)
}

func (s *state) takeSandbox(sb *api.PodSandbox, former []sandbox) {
	uid := types.UID(sb.GetUid())
	if source := sb.GetAnnotations()[sourceAnnotation]; source != "" && source != "api" {
		uid = "" // a static pod: the API server knows its mirror, which has a UID of its own
	}
	now := newSandbox(sb)
	now.former = former
	s.setSandbox(sandboxKey(sb), uid, sb.GetLabels(), now)
}

func newSandbox(sb *api.PodSandbox) sandbox {
	return sandbox{id: sb.GetId(), process: sb.GetPid() != 0, addresses: sandboxAddresses(sb)}
}

func sandboxKey(s *api.PodSandbox) types.NamespacedName {
	return types.NamespacedName{Namespace: s.GetNamespace(), Name: s.GetName()}
}

// sandboxAddresses are the pod's own; none for one on the host's network.
func sandboxAddresses(s *api.PodSandbox) []netip.Addr {
	own := false
	for _, ns := range s.GetLinux().GetNamespaces() {
		own = own || ns.GetType() == "network" && ns.GetPath() != ""
	}
	if !own {
		return nil
	}
	var out []netip.Addr
	for _, ip := range s.GetIps() {
		if addr, err := netip.ParseAddr(ip); err == nil {
			out = append(out, addr.Unmap())
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
