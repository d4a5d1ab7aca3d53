package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
)

// StartupTaint keeps pods off a node until policies are in force there. Nodes are registered with it (kubelet's --register-with-taints, a node
// group's taints); the agent removes it.
const StartupTaint = "kidoban.dev/agent-not-ready"

const taintRetry = 5 * time.Second

// NodeTaint is the StartupTaint of one node.
type NodeTaint struct {
	Nodes    corev1client.NodeInterface
	NodeName string
}

// removeTaint removes the taint once policies are in force. It retries until that is done or the context is.
func (a *Agent) removeTaint(ctx context.Context) {
	logged := false
	_ = wait.PollUntilContextCancel(ctx, taintRetry, true, func(ctx context.Context) (bool, error) {
		if ok, _ := a.applied.has(0); !ok {
			return false, nil
		}
		removed, err := a.opts.Taint.remove(ctx)
		if err != nil && !logged && ctx.Err() == nil {
			logged = true
			a.opts.Log.Error(err, "Cannot remove the start-up taint; retrying", "taint", StartupTaint)
		}
		if removed {
			a.opts.Log.Info("Removed the start-up taint: pods may be scheduled here", "taint", StartupTaint)
		}
		return err == nil, nil
	})
}

// remove removes the taint and reports whether it was there.
func (t *NodeTaint) remove(ctx context.Context) (bool, error) {
	node, err := t.Nodes.Get(ctx, t.NodeName, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("read the node %s: %w", t.NodeName, err)
	}
	isOurs := func(taint corev1.Taint) bool { return taint.Key == StartupTaint }
	if !slices.ContainsFunc(node.Spec.Taints, isOurs) {
		return false, nil
	}
	// The patch replaces the list, so it must fail if the list has changed meanwhile.
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": node.ResourceVersion},
		{"op": "replace", "path": "/spec/taints", "value": slices.DeleteFunc(slices.Clone(node.Spec.Taints), isOurs)},
	})
	if err != nil {
		return false, err
	}
	if _, err := t.Nodes.Patch(ctx, t.NodeName, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return false, fmt.Errorf("remove the taint from the node %s: %w", t.NodeName, err)
	}
	return true, nil
}
