package main

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// otherClient is a client that has nothing to do with policies, with the rights and the priority of a service account.
type otherClient struct{ api *kubernetes.Clientset }

func (c *cluster) newOtherClient() (*otherClient, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	api, err := kubernetes.NewForConfig(config)
	return &otherClient{api}, err
}

// measure asks for an object 20 times a second until do returns.
func (o *otherClient) measure(ctx context.Context, do func()) durations {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan durations)
	go func() {
		var took durations
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				result <- took
				return
			case <-tick.C:
			}
			begin := time.Now()
			if _, err := o.api.CoreV1().Namespaces().Get(ctx, sharedNamespace, metav1.GetOptions{}); err == nil {
				took = append(took, time.Since(begin))
			}
		}
	}()
	do()
	cancel()
	return <-result
}

// wait waits for a while.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
