//go:build envtest

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/startup"
)

// scraper returns a token of a new ServiceAccount.
func scraper(t *testing.T, c *kubernetes.Clientset, name string, audiences ...string) string {
	t.Helper()
	accounts := c.CoreV1().ServiceAccounts("default")
	if _, err := accounts.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}
	token, err := accounts.CreateToken(t.Context(), name, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return token.Status.Token
}

// Secure metrics are served by TLS to users that the role of config/components/secure-metrics is bound to, and to no others.
func TestSecureMetrics(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var role rbacv1.ClusterRole
	file, err := os.ReadFile(filepath.Join("..", "..", "config", "components", "secure-metrics", "reader_role.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(file, &role); err != nil {
		t.Fatal(err)
	}
	if role.Name != startup.MetricsReader {
		t.Errorf("the role is %s; callers are sent to %s", role.Name, startup.MetricsReader)
	}
	if _, err := c.RbacV1().ClusterRoles().Create(t.Context(), &role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "default", Name: "prometheus"}},
	}
	if _, err := c.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	allowed, other := scraper(t, c, "prometheus"), scraper(t, c, "other")

	metrics, probes := freeAddr(t), freeAddr(t)
	start(t, "--secure-metrics", "--metrics-bind-address="+metrics, "--health-probe-bind-address="+probes)
	get(t, "http://"+probes+"/readyz")
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	ask := func(token string) (int, string, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+metrics+"/metrics", nil)
		if err != nil {
			return 0, "", err
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := client.Do(r)
		if err != nil {
			return 0, "", err
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, string(body), err
	}
	for deadline := time.Now().Add(30 * time.Second); ; { // the API server's authorizer follows the binding with a delay
		status, body, err := ask(allowed)
		if status == http.StatusOK && strings.Contains(body, "kidoban_controller_policies") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the one that may read: %d, %v: %s", status, err, body)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for name, tc := range map[string]struct {
		token string
		want  int
	}{
		"no token": {"", http.StatusUnauthorized}, "a token that is none": {"x", http.StatusUnauthorized}, "a user without the role": {other, http.StatusForbidden},
		"a token for another audience": {scraper(t, c, "elsewhere", "elsewhere"), http.StatusUnauthorized},
	} {
		if status, body, err := ask(tc.token); status != tc.want || strings.Contains(body, "kidoban_controller") {
			t.Errorf("%s: %d, %v: %s", name, status, err, body)
		}
	}
	if res, err := http.Get(fmt.Sprintf("http://%s/metrics", metrics)); err == nil {
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			t.Error("metrics are served without TLS")
		}
	}
}
