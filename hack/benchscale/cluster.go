package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"golang.org/x/sync/errgroup"

	"github.com/kidoban/kidoban/internal/apitest"
)

// loaders is the number of parallel requests that fill the cluster.
const loaders = 32

// cluster is an API server with a load on it.
type cluster struct {
	*load
	config     *rest.Config // of an administrator, without a limit
	kubeconfig string
	clients    *kubernetes.Clientset
	policies   []*networkingv1.NetworkPolicy
	pods       []pod
	taken      int // pods that were taken to be changed
	directory  string
	stop       func() error
}

func startCluster(l *load) (c *cluster, err error) {
	c = &cluster{load: l, policies: l.allPolicies(), pods: l.allPods()}
	if c.config, c.stop, err = apitest.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = c.close()
		}
	}()
	c.config.QPS = -1
	c.config.DisableCompression = true // it takes CPU time from what is measured, and bytes are counted uncompressed
	c.config.ContentType = runtime.ContentTypeProtobuf
	if c.clients, err = kubernetes.NewForConfig(c.config); err != nil {
		return nil, err
	}
	c.config.ContentType = "" // custom resources exist as JSON only
	if c.directory, err = os.MkdirTemp("", "benchscale-"); err != nil {
		return nil, err
	}
	c.kubeconfig = filepath.Join(c.directory, "kubeconfig")
	return c, nil
}

func (c *cluster) close() error {
	_ = os.RemoveAll(c.directory)
	return c.stop()
}

// writeKubeconfig writes the kubeconfig of controllers, with the token of a service account, as in a cluster.
func (c *cluster) writeKubeconfig(ctx context.Context) error {
	const name = "benchscale"
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := c.clients.CoreV1().ServiceAccounts(sharedNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := c.clients.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: sharedNamespace, Name: name}},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	token, err := c.clients.CoreV1().ServiceAccounts(sharedNamespace).CreateToken(ctx, name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["it"] = &api.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData}
	config.AuthInfos[name] = &api.AuthInfo{Token: token.Status.Token}
	config.Contexts["it"] = &api.Context{Cluster: "it", AuthInfo: name}
	config.CurrentContext = "it"
	return clientcmd.WriteToFile(*config, c.kubeconfig)
}

// fill creates the namespaces, the policies and the running pods.
func (c *cluster) fill(ctx context.Context) error {
	if err := c.createNamespace(ctx, sharedNamespace, nil); err != nil {
		return err
	}
	if err := c.writeKubeconfig(ctx); err != nil {
		return err
	}
	if err := inParallel(ctx, c.namespaces, func(ctx context.Context, i int) error {
		return c.createNamespace(ctx, namespaceName(i), namespaceLabels(i))
	}); err != nil {
		return err
	}
	if err := inParallel(ctx, len(c.policies), func(ctx context.Context, i int) error {
		np := c.policies[i].DeepCopy()
		np.UID = ""
		_, err := c.clients.NetworkingV1().NetworkPolicies(np.Namespace).Create(ctx, np, metav1.CreateOptions{})
		return err
	}); err != nil {
		return err
	}
	if err := c.createClusterPolicies(ctx); err != nil {
		return err
	}
	return inParallel(ctx, len(c.pods), func(ctx context.Context, i int) error {
		created, err := c.createPod(ctx, &c.pods[i])
		if err != nil {
			return err
		}
		return c.runPod(ctx, created, &c.pods[i])
	})
}

func inParallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(loaders)
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

func (c *cluster) createNamespace(ctx context.Context, name string, labels map[string]string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := c.clients.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	return err
}

// createPod creates a pod that is bound to a node and has no address yet.
func (c *cluster) createPod(ctx context.Context, p *pod) (*corev1.Pod, error) {
	return c.clients.CoreV1().Pods(namespaceName(p.namespace)).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.name, Labels: p.labels},
		Spec: corev1.PodSpec{
			NodeName:                     p.node,
			AutomountServiceAccountToken: new(false),
			Containers: []corev1.Container{{
				Name: "main", Image: "registry.example/app:v1",
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			}},
		},
	}, metav1.CreateOptions{})
}

// runPod writes the status that a node would, with the pod's address.
func (c *cluster) runPod(ctx context.Context, created *corev1.Pod, p *pod) error {
	created.Status.Phase = corev1.PodRunning
	created.Status.PodIP = p.address.String()
	created.Status.PodIPs = []corev1.PodIP{{IP: p.address.String()}}
	created.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	_, err := c.clients.CoreV1().Pods(created.Namespace).UpdateStatus(ctx, created, metav1.UpdateOptions{})
	return err
}

func (c *cluster) deletePod(ctx context.Context, p *pod) error {
	return c.clients.CoreV1().Pods(namespaceName(p.namespace)).Delete(ctx, p.name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
}

func (c *cluster) relabelPod(ctx context.Context, p *pod) error {
	pod, err := c.clients.CoreV1().Pods(namespaceName(p.namespace)).Get(ctx, p.name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("relabel: %w", err)
	}
	pod.Labels = p.labels
	_, err = c.clients.CoreV1().Pods(pod.Namespace).Update(ctx, pod, metav1.UpdateOptions{})
	return err
}
