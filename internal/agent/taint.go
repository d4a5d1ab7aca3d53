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

// StartupTaint keeps pods off a node until its agent judges. Nodes are registered with it (kubelet's --register-with-taints, a node group's
// taints); the agent takes it off.
const StartupTaint = "kidoban.dev/agent-not-ready"

const taintRetry = 5 * time.Second

// NodeTaint is the StartupTaint of one node.
type NodeTaint struct {
	Nodes    corev1client.NodeInterface
	NodeName string
}

// removeTaint takes the taint off once the agent is ready. It is tried again until it is done or the context is.
func (a *Agent) removeTaint(ctx context.Context) {
	told := false
	_ = wait.PollUntilContextCancel(ctx, taintRetry, true, func(ctx context.Context) (bool, error) {
		if !a.inForce.Load() || a.failure.Load() != nil {
			return false, nil
		}
		removed, err := a.opts.Taint.remove(ctx)
		if err != nil && !told && ctx.Err() == nil {
			told = true
			a.opts.Log.Error(err, "Cannot take the start-up taint off; it is tried again", "taint", StartupTaint)
		}
		if removed {
			a.opts.Log.Info("The start-up taint is off: pods may come", "taint", StartupTaint)
		}
		return err == nil, nil
	})
}

// remove takes the taint off and reports whether it was there.
func (t *NodeTaint) remove(ctx context.Context) (bool, error) {
	node, err := t.Nodes.Get(ctx, t.NodeName, metav1.GetOptions{})
	if err != nil {
		return false, fmt.Errorf("read the node %s: %w", t.NodeName, err)
	}
	isOurs := func(taint corev1.Taint) bool { return taint.Key == StartupTaint }
	if !slices.ContainsFunc(node.Spec.Taints, isOurs) {
		return false, nil
	}
	// Nobody else may have changed the list meanwhile: it is written as a whole.
	patch, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/metadata/resourceVersion", "value": node.ResourceVersion},
		{"op": "replace", "path": "/spec/taints", "value": slices.DeleteFunc(slices.Clone(node.Spec.Taints), isOurs)},
	})
	if err != nil {
		return false, err
	}
	if _, err := t.Nodes.Patch(ctx, t.NodeName, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return false, fmt.Errorf("take the taint off the node %s: %w", t.NodeName, err)
	}
	return true, nil
}
