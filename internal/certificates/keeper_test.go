package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

// Two replicas without a leader, and certificates that live for minutes: an agent that trusts what is published can
// always connect to both.
func TestReplicasRotate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meta := metav1.ObjectMeta{Namespace: "kidoban", Name: "object"}
		client := fake.NewClientset(&corev1.Secret{ObjectMeta: meta}, &corev1.ConfigMap{ObjectMeta: meta}).CoreV1()
		all := make(chan struct{})
		close(all)
		var replicas []*Keeper
		for range 2 {
			k := &Keeper{
				Issuer: Issuer{ServerName: "server.example", Lifetimes: Lifetimes{Authority: 20 * time.Minute, Leaf: 5 * time.Minute, Overlap: time.Minute, Skew: time.Second}},
				Secret: "object", ConfigMap: "object",
				Secrets: client.Secrets("kidoban"), ConfigMaps: client.ConfigMaps("kidoban"), Leading: all, Log: logr.Discard(),
			}
			replicas = append(replicas, k)
			go func() { _ = k.Start(t.Context()) }()
		}
		time.Sleep(5 * time.Second)
		seen := map[string]bool{}
		for range 120 {
			object, err := client.ConfigMaps("kidoban").Get(t.Context(), "object", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(object.Data["ca.crt"]))
			time.Sleep(time.Minute) // the agent's copy is as old as that
			for i, k := range replicas {
				c, err := k.Certificate(&tls.ClientHelloInfo{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := c.Leaf.Verify(x509.VerifyOptions{DNSName: "server.example", Roots: roots, CurrentTime: time.Now()}); err != nil {
					t.Fatalf("replica %d at %s: %v", i, time.Now(), err)
				}
				if left := time.Until(k.Expires()); left < time.Minute {
					t.Errorf("replica %d: the certificate expires in %s", i, left)
				}
				seen[string(c.Certificate[0])] = true
			}
		}
		if len(seen) < 20 {
			t.Errorf("%d certificates in two hours", len(seen))
		}
	})
}
