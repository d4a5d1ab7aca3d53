//go:build envtest

package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
)

// shared is kidoban's own namespace in these tests.
const shared = "kidoban-system"

var (
	scheme = runtime.NewScheme()
	admin  *rest.Config
	// user is the controller: it may do what config/rbac allows, and no more.
	user *rest.Config
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	if os.Getenv("KIDOBAN_TEST_LOG") != "" {
		ctrl.SetLogger(zap.New(zap.UseDevMode(true)))
	}
	var stop func() error
	var err error
	if admin, stop, err = apitest.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = stop() }()
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func setUp() error {
	if err := errors.Join(admissionv1.AddToScheme(scheme), corev1.AddToScheme(scheme), discoveryv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme), rbacv1.AddToScheme(scheme), eventsv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), cnp.Install(scheme)); err != nil {
		return err
	}
	admin.QPS = -1
	c, err := client.New(admin, client.Options{Scheme: scheme})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shared}}); err != nil {
		return err
	}
	for file, obj := range map[string]client.Object{
		"role.yaml":                         &rbacv1.ClusterRole{},
		"role_binding.yaml":                 &rbacv1.ClusterRoleBinding{},
		"leader_election_role.yaml":         &rbacv1.Role{},
		"leader_election_role_binding.yaml": &rbacv1.RoleBinding{},
		"certificates_role.yaml":            &rbacv1.Role{},
		"certificates_role_binding.yaml":    &rbacv1.RoleBinding{},
	} {
		data, err := os.ReadFile(filepath.Join(apitest.Root(), "config", "rbac", file))
		if err != nil {
			return err
		}
		if err := yaml.Unmarshal(data, obj); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if b, ok := obj.(interface{ GetNamespace() string }); ok && b.GetNamespace() == "" {
			obj.SetNamespace(shared) // as kustomize does; cluster-scoped kinds ignore it
		}
		switch obj.(type) {
		case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
			obj.SetNamespace("")
		}
		if err := c.Create(ctx, obj); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	user = rest.CopyConfig(admin)
	user.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + shared + ":kidoban-controller", Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return nil
}
