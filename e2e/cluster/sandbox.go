package cluster

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"

	corev1 "k8s.io/api/core/v1"
)

// StopSandbox stops the running sandbox of a pod without the kubelet's knowledge, by the call to the container runtime that `crictl stopp` makes.
// The kubelet then starts another sandbox for the pod.
func (c *Cluster) StopSandbox(ctx context.Context, pod *corev1.Pod) (err error) {
	pid, err := c.process(pod.Spec.NodeName)
	if err != nil {
		return err
	}
	// The node's /run is a file system of its own.
	socket := fmt.Sprintf("unix:///proc/%d/root/run/containerd/containerd.sock", pid)
	connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	runtime := runtimev1.NewRuntimeServiceClient(connection)
	list, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{Filter: &runtimev1.PodSandboxFilter{
		State:         &runtimev1.PodSandboxStateValue{State: runtimev1.PodSandboxState_SANDBOX_READY},
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": string(pod.UID)},
	}})
	if err != nil {
		return fmt.Errorf("list the sandboxes of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if len(list.Items) != 1 {
		return fmt.Errorf("pod %s/%s has %d running sandboxes", pod.Namespace, pod.Name, len(list.Items))
	}
	if _, err := runtime.StopPodSandbox(ctx, &runtimev1.StopPodSandboxRequest{PodSandboxId: list.Items[0].Id}); err != nil {
		return fmt.Errorf("stop the sandbox of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
