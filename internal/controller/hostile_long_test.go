//go:build hostile && envtest

package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// manyBlocks is a policy of the largest size that the API server takes, which differs from round to round.
func manyBlocks(round int) networkingv1.NetworkPolicySpec {
	rule := networkingv1.NetworkPolicyIngressRule{}
	for i := range 15_000 {
		n := i + round
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{
			CIDR: "0.0.0.0/0", Except: []string{fmt.Sprintf("10.%d.%d.%d/32", 1+n>>16, n>>8&255, n&255)},
		}})
	}
	return networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{rule}}
}

// A tenant that edits the largest policies without pause delays the pods of another one by a bounded time. The test logs the
// times and fails if a pod is lost.
func TestHostileEditsWithoutPause(t *testing.T) {
	c := newCluster(t, "hostile", "shop")
	startController(t, false)
	np := c.policy("shop", "db", fromWeb)
	next := 0
	measure := func(pods int) (times []time.Duration) {
		for range pods {
			next++
			c.pod("shop", fmt.Sprintf("web-%d", next), map[string]string{"app": "web"}, fmt.Sprintf("10.9.0.%d", next))
			begin := time.Now()
			eventually(t, func() error {
				got, err := c.peers(np, "Ingress")
				if want := fmt.Sprintf("10.9.0.%d", next); err == nil && !slices.Contains(strings.Fields(got), want) {
					err = fmt.Errorf("%s is missing in %s", want, got)
				}
				return err
			})
			times = append(times, time.Since(begin))
		}
		slices.Sort(times)
		return times
	}
	before := measure(30)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	edits := 0
	wg.Go(func() {
		hostile := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("hostile"), Name: "large"}, Spec: manyBlocks(0)}
		err := c.Create(ctx, hostile)
		for ; err == nil; edits++ {
			hostile.Spec = manyBlocks(edits)
			err = c.Update(ctx, hostile, client.FieldOwner("hostile"))
		}
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	during := measure(100)
	cancel()
	wg.Wait()
	if edits == 0 {
		t.Error("there was no edit")
	}
	for name, times := range map[string][]time.Duration{"before": before, "during": during} {
		t.Logf("%s: p50 %s, p99 %s", name, times[len(times)/2], times[len(times)*99/100])
	}
	t.Logf("%d edits of 15,000 blocks", edits)
}
