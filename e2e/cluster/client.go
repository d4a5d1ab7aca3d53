package cluster

import (
	"context"
	"fmt"
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
	pid, err := c.process("kube-apiserver")
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // no limit
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialIn(ctx, pid, network, address)
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

// dialIn connects to an address, which is no name, in the network namespace of a process.
func dialIn(ctx context.Context, pid int, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// Never unlocked: the thread, whose network namespace is not the others', ends with this goroutine.
		runtime.LockOSThread()
		conn, err := func() (net.Conn, error) {
			namespace, err := netns.GetFromPid(pid)
			if err != nil {
				return nil, fmt.Errorf("network namespace of process %d: %w", pid, err)
			}
			defer namespace.Close()
			if err := netns.Set(namespace); err != nil {
				return nil, err
			}
			var dialer net.Dialer
			return dialer.DialContext(ctx, network, address)
		}()
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}
