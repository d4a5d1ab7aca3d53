package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/node"
)

// cniPods are the pods that a CNI plugin has announced, until their interfaces are gone. The plugin names neither a pod's sandbox nor its UID, and
// reports the end of a sandbox by the pod's name alone: so the pod's first interface stands for its sandbox.
type cniPods struct {
	mu         sync.Mutex
	interfaces map[types.NamespacedName]uint32
}

// EnforcePod returns when the policies of a pod are in force whose interfaces a CNI plugin has just made. It first waits until the API server has
// sent the pod. interfaces are the indexes of the node's ends.
func (a *Agent) EnforcePod(ctx context.Context, pod types.NamespacedName, interfaces []uint32) error {
	if len(interfaces) == 0 {
		return fmt.Errorf("pod %s has no interface", pod)
	}
	defer a.state.awaitPod(pod)()
	a.interfaces.refresh(ctx)
	a.forgetCNIPods(ctx)
	if err := a.waitForObject(ctx, pod); err != nil {
		return fmt.Errorf("wait for pod %s from the API server: %w", pod, err)
	}
	addresses, err := a.addressesOf(interfaces)
	if err != nil {
		return fmt.Errorf("pod %s: %w", pod, err)
	}
	a.cniPods.mu.Lock()
	a.cniPods.interfaces[pod] = interfaces[0]
	a.cniPods.mu.Unlock()
	s := node.Sandbox{Pod: pod, ID: interfaceSandbox(interfaces[0]), Process: true, Addresses: addresses}
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.RunSandbox(now, s) })
	if err := a.waitForPod(ctx, pod); err != nil {
		return fmt.Errorf("wait until the policies of pod %s are in force: %w", pod, err)
	}
	// conntrack may have flows of the pod that had the address before.
	return a.sweeper.sweepNow(ctx, addresses)
}

// interfaceSandbox is the ID of the sandbox that an interface stands for.
func interfaceSandbox(index uint32) string { return fmt.Sprintf("interface-%d", index) }

// waitForObject returns when the API server has sent a pod.
func (a *Agent) waitForObject(ctx context.Context, key types.NamespacedName) error {
	for {
		_, changed := a.applied.has(0)
		expected := false
		a.state.read(func(n *node.Node) { expected = n.IsExpected(key) })
		if expected {
			return nil
		}
		select { // the writer comes round after each event, whether or not it changes an entry
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// addressesOf are the addresses that the node's routes lead to over these interfaces.
func (a *Agent) addressesOf(interfaces []uint32) ([]netip.Addr, error) {
	var out []netip.Addr
	a.state.read(func(n *node.Node) {
		for _, index := range interfaces {
			out = append(out, n.Interfaces().Routed[index]...)
		}
	})
	if len(out) == 0 {
		return nil, errors.New("no route leads to its interfaces")
	}
	return out, nil
}

// forgetCNIPods ends the sandboxes whose interfaces are gone.
func (a *Agent) forgetCNIPods(ctx context.Context) {
	a.cniPods.mu.Lock()
	defer a.cniPods.mu.Unlock()
	a.state.update(ctx, func(now time.Time, n *node.Node) {
		there := n.Interfaces().Routed
		for pod, index := range a.cniPods.interfaces {
			if _, ok := there[index]; !ok {
				delete(a.cniPods.interfaces, pod)
				n.StopSandbox(now, pod, interfaceSandbox(index))
			}
		}
	})
}
