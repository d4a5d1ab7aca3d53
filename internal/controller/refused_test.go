//go:build envtest

package controller

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
)

// The API server's own words on a quota do not say which namespace it is in.
func TestAnErrorNamesWhatItIsAbout(t *testing.T) {
	c := newCluster(t, "shop")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "none"}}
	quota.Spec.Hard = corev1.ResourceList{"count/policyendpoints.networking.kidoban.dev": resource.MustParse("0")}
	c.create(quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard} // there is nobody here who counts
	if err := c.Status().Update(ctx, quota); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	startController(t, false, func(o *ctrl.Options) {
		o.Logger = funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, args)
		}, funcr.Options{})
	})
	np := c.policy("shop", "db", fromWeb)
	eventually(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		refused := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "quota") })
		if refused < 0 {
			return fmt.Errorf("no error of the quota among %q", lines)
		}
		if l := lines[refused]; !strings.Contains(l, np.Namespace) || !strings.Contains(l, "db-") {
			t.Fatalf("it does not say what was refused: %s", l)
		}
		return nil
	})
	c.delete(quota)
	c.expectPeers(np, "Ingress", "")
}
