package cluster

import (
	"context"
	"net"
	"runtime"
	"strings"

	"github.com/go-logr/logr"
	"github.com/vishvananda/netns"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Client is a client of the API server, as administrator.
func (c *Cluster) Client(ctx context.Context) (client.Client, error) {
	kubeconfig, err := Output(c.Command(ctx, "kubeconfig"))
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", strings.TrimSpace(kubeconfig))
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return c.DialControlPlane(ctx, network, address)
	}
	log.SetLogger(logr.Discard()) // which asks for one otherwise
	scheme := k8sruntime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: scheme})
}

// DialControlPlane connects to an address, which is no name, in the control plane's network namespace.
func (c *Cluster) DialControlPlane(ctx context.Context, network, address string) (net.Conn, error) {
	return inControlPlane(c, func() (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
}

// ListenControlPlane listens on an address in the control plane's network namespace, where nodes and their host network's pods reach it.
func (c *Cluster) ListenControlPlane(network, address string) (net.Listener, error) {
	return inControlPlane(c, func() (net.Listener, error) { return net.Listen(network, address) })
}

// inControlPlane calls open in the control plane's network namespace; what it opens stays there.
func inControlPlane[T any](c *Cluster, open func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread, whose network namespace is not the others', ends with this goroutine.
		runtime.LockOSThread()
		var r result
		var namespace netns.NsHandle
		namespace, r.err = netns.GetFromName("kidoban-" + c.Name + "-cp")
		if r.err == nil {
			r.err = netns.Set(namespace)
			_ = namespace.Close()
		}
		if r.err == nil {
			r.value, r.err = open()
		}
		done <- r
	}()
	r := <-done
	return r.value, r.err
}
