package engine

import (
	"context"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// Observer is the name of the observer's Deployment and of the name in its certificate, and the audience of its tokens.
const Observer = "kidoban-observer"

// ObserverComponents add the observer: a component's own images are those of a release.
var ObserverComponents = []string{"observer", "local-images"}

// InstallObserver adds the observer to an installation whose images are loaded, and waits until it is ready.
func InstallObserver(ctx context.Context, c *cluster.Cluster) error {
	overlay := Overlay{Root: c.Repo, Base: "config/overlays/local", Components: ObserverComponents}
	if err := overlay.Apply(ctx, c); err != nil {
		return err
	}
	if err := AwaitReady(ctx, c); err != nil {
		return err
	}
	return AwaitObserver(ctx, c)
}

// AwaitObserver waits until the observer is ready.
func AwaitObserver(ctx context.Context, c *cluster.Cluster) error {
	return awaitReady(ctx, c, "deployment/"+Observer)
}

// RemoveObserver undoes InstallObserver.
func RemoveObserver(ctx context.Context, c *cluster.Cluster) error {
	overlay := Overlay{Root: c.Repo, Base: "config/overlays/local"}
	if err := overlay.Apply(ctx, c); err != nil {
		return err
	}
	if err := AwaitReady(ctx, c); err != nil {
		return err
	}
	_, err := cluster.Output(c.Kubectl(ctx, "-n", Namespace, "delete", "--ignore-not-found",
		"deployment/"+Observer, "service/"+Observer, "networkpolicy/"+Observer, "serviceaccount/"+Observer,
		"secret/"+Observer+"-certificates", "configmap/"+Observer+"-ca", "role/"+Observer+"-authority",
		"role/"+Observer+"-certificates", "rolebinding/"+Observer+"-certificates",
		"clusterrole/"+Observer, "clusterrolebinding/"+Observer, "clusterrole/kidoban-flow-reader", "clusterrolebinding/kidoban-flow-reader"))
	return err
}
