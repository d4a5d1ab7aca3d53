package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// Namespace that kidoban is installed in.
const Namespace = "kidoban-system"

// workloads of an installation.
var workloads = []string{"deployment/kidoban-controller", "daemonset/kidoban-agent"}

// Install applies the manifests that users get, with the images of this build and some components of config/components, and waits until both
// halves are ready. An error comes with what their pods say.
func Install(ctx context.Context, c *cluster.Cluster, build *Build, components ...string) error {
	if err := c.Load(ctx, build.Images...); err != nil {
		return err
	}
	overlay := Overlay{Root: c.Repo, Base: "config/overlays/local", Components: components}
	if err := overlay.Apply(ctx, c); err != nil {
		return err
	}
	return AwaitReady(ctx, c)
}

// Restart makes both halves' pods anew, so that they run the images loaded last.
func Restart(ctx context.Context, c *cluster.Cluster) error {
	if _, err := cluster.Output(c.Kubectl(ctx, append([]string{"-n", Namespace, "rollout", "restart"}, workloads...)...)); err != nil {
		return err
	}
	return AwaitReady(ctx, c)
}

// AwaitReady waits until both halves are ready.
func AwaitReady(ctx context.Context, c *cluster.Cluster) error {
	for _, workload := range workloads {
		if err := awaitReady(ctx, c, workload); err != nil {
			return err
		}
	}
	return nil
}

func awaitReady(ctx context.Context, c *cluster.Cluster, workload string) error {
	if _, err := cluster.Output(c.Kubectl(ctx, "-n", Namespace, "rollout", "status", "--timeout=5m", workload)); err != nil {
		return errors.Join(err, errors.New(Describe(ctx, c)))
	}
	return nil
}

// Describe says how both halves are, for a person to find out what went wrong.
func Describe(ctx context.Context, c *cluster.Cluster) string {
	var b strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"},
		{"get", "events", "--field-selector=type=Warning"},
		{"logs", "--prefix", "--tail=30", "-l", "app.kubernetes.io/part-of=kidoban"},
		{"logs", "--prefix", "--tail=10", "--previous", "-l", "app.kubernetes.io/part-of=kidoban"},
	} {
		out, err := cluster.Output(c.Kubectl(ctx, append([]string{"-n", Namespace}, args...)...))
		if err == nil {
			fmt.Fprintf(&b, "--- kubectl %s\n%s", strings.Join(args, " "), out)
		}
	}
	return b.String()
}
