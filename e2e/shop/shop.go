// Package shop runs examples/shop on a test cluster, with a partner outside it, and finds out who reaches whom there.
package shop

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
)

// The namespaces that the shop's pods are in, and the stand-in for the cluster's DNS.
const (
	shopNamespace       = "shop"
	monitoringNamespace = "monitoring"
	dnsNamespace        = "kube-system"
)

var namespaces = []string{shopNamespace, monitoringNamespace, dnsNamespace}

// workloads in the order in which tables show them.
var workloads = []string{"frontend", "backend", "database", "prometheus", "kube-dns"}

func rank(workload string) int {
	if i := slices.Index(workloads, workload); i >= 0 {
		return i
	}
	return len(workloads)
}

//go:embed dns.yaml
var dnsManifest string

// The partner is outside the cluster and has two networks, of which the shop's policies except the second. Their
// addresses are for documentation (RFC 5737, RFC 3849).
var (
	partner     = addresses("203.0.113.10", "2001:db8:113::10")
	partnerTest = addresses("203.0.113.200", "2001:db8:113:8000::10")
	partnerTCP  = []uint16{443, 8443}
)

// outside are the control plane's own addresses, from which the partner's host, and every client that is no pod, connects.
var outside = addresses("172.30.0.10", "fd30::10")

func addresses(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// A Shop is deployed on a cluster.
type Shop struct {
	Cluster *cluster.Cluster
	Client  client.Client

	probe   string // executable for the outside
	stopped func() error
}

// Deploy applies the shop's manifests, but not its policies, and waits until all pods are ready. The partner serves
// until Close is called or this process ends. probe is the machine's executable of e2e/probe.
func Deploy(ctx context.Context, c *cluster.Cluster, probe string) (*Shop, error) {
	api, err := c.Client(ctx)
	if err != nil {
		return nil, err
	}
	s := &Shop{Cluster: c, Client: api, probe: probe}
	if err := s.startPartner(ctx); err != nil {
		return nil, fmt.Errorf("partner outside the cluster: %w", err)
	}
	if err := s.apply(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Shop) apply(ctx context.Context) error {
	dns := s.Cluster.Kubectl(ctx, "apply", "-f", "-")
	dns.Stdin = strings.NewReader(dnsManifest)
	if _, err := cluster.Output(dns); err != nil {
		return err
	}
	if _, err := cluster.Output(s.Cluster.Kubectl(ctx, "apply", "-k", s.manifests())); err != nil {
		return err
	}
	return s.AwaitReady(ctx)
}

func (s *Shop) manifests() string { return filepath.Join(s.Cluster.Repo, "examples", "shop") }

// ApplyPolicies applies the shop's NetworkPolicies.
func (s *Shop) ApplyPolicies(ctx context.Context) error {
	_, err := cluster.Output(s.Cluster.Kubectl(ctx, "apply", "-k", filepath.Join(s.manifests(), "policies")))
	return err
}

// Close ends what runs on the machine for the shop. It leaves the cluster's objects.
func (s *Shop) Close() error { return s.stopped() }

func (s *Shop) startPartner(ctx context.Context) error {
	if err := s.Cluster.AddOutside(append(append([]netip.Addr{}, partner...), partnerTest...)); err != nil {
		return err
	}
	argv := []string{s.probe, "serve", "--while-stdin", "--name=partner"}
	for _, port := range partnerTCP {
		argv = append(argv, fmt.Sprintf("--tcp=%d", port))
	}
	cmd := s.Cluster.Outside(ctx, argv...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	s.stopped = func() error {
		_ = stdin.Close()
		return cmd.Wait()
	}
	return startUntilReady(cmd)
}

// startUntilReady starts a command and waits for its first line of output.
func startUntilReady(cmd *exec.Cmd) error {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if _, err := io.ReadFull(stdout, make([]byte, len("ready\n"))); err != nil {
		return fmt.Errorf("%w: %s", cmd.Wait(), stderr.String())
	}
	return nil
}

const readyTimeout = 2 * time.Minute

// AwaitReady waits until the Deployments have all their pods ready, and no other pod is left.
func (s *Shop) AwaitReady(ctx context.Context) error {
	var why string
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, readyTimeout, true, func(ctx context.Context) (bool, error) {
		now, err := s.unready(ctx)
		switch {
		case err == nil:
			why = now
		case ctx.Err() == nil: // the API server may just have started
			why = err.Error()
		}
		return err == nil && now == "", nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, why)
	}
	return nil
}

// unready says what is not ready, or nothing. It goes by the pods: a Deployment's status lags behind them.
func (s *Shop) unready(ctx context.Context) (string, error) {
	wanted := 0
	for _, namespace := range namespaces {
		var deployments appsv1.DeploymentList
		if err := s.Client.List(ctx, &deployments, client.InNamespace(namespace)); err != nil {
			return "", err
		}
		for _, d := range deployments.Items {
			wanted += int(*d.Spec.Replicas)
		}
	}
	pods, err := s.Pods(ctx)
	if err != nil {
		return "", err
	}
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil || !isReady(&pod) {
			return fmt.Sprintf("pod %s/%s is not ready, or not gone yet", pod.Namespace, pod.Name), nil
		}
	}
	if len(pods) != wanted {
		return fmt.Sprintf("%d pods, want %d", len(pods), wanted), nil
	}
	return "", nil
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Pods are the shop's, workload by workload, also those that are about to go.
func (s *Shop) Pods(ctx context.Context) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	for _, namespace := range namespaces {
		var list corev1.PodList
		if err := s.Client.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		pods = append(pods, list.Items...)
	}
	slices.SortStableFunc(pods, func(a, b corev1.Pod) int {
		return cmp.Compare(rank(a.Labels[matrix.WorkloadLabel]), rank(b.Labels[matrix.WorkloadLabel]))
	})
	return pods, nil
}
