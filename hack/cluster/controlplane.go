package main

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const etcdURL = "http://127.0.0.1:2379"

// startControlPlane starts etcd, the API server, the controller manager and the
// scheduler in the control plane's network namespace, waits until the API server
// serves and makes the Node objects.
func (c *Cluster) startControlPlane(ctx context.Context) ([]*running, error) {
	if err := c.setUpControlPlaneNetwork(); err != nil {
		return nil, err
	}
	if err := c.writeAuditPolicy(); err != nil {
		return nil, err
	}
	var all []*running
	start := func(name string) error {
		r, err := c.start(c.controlPlaneComponent(name))
		if err == nil {
			all = append(all, r)
		}
		return err
	}
	if err := start("etcd"); err != nil {
		return all, err
	}
	if err := start("kube-apiserver"); err != nil {
		return all, err
	}
	err := await(ctx, "the API server", 2*time.Minute, all, func() error {
		_, err := c.kubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
	if err != nil {
		return all, err
	}
	if err := start("kube-controller-manager"); err != nil {
		return all, err
	}
	if err := start("kube-scheduler"); err != nil {
		return all, err
	}
	return all, c.makeNodeObjects(ctx)
}

func (c *Cluster) controlPlaneComponent(name string) component {
	args := map[string]func() []string{
		"etcd":                    c.etcdArgs,
		"kube-apiserver":          c.apiServerArgs,
		"kube-controller-manager": c.controllerManagerArgs,
		"kube-scheduler":          func() []string { return c.componentKubeconfigs("kube-scheduler") },
	}[name]
	return component{name: name, netns: c.controlPlaneNetns(), argv: append([]string{c.program(name)}, args()...)}
}

func (c *Cluster) etcdArgs() []string {
	return []string{
		"--data-dir=" + c.path("etcd"),
		"--unsafe-no-fsync", // a test's data need not survive the machine
		"--listen-client-urls=" + etcdURL,
		"--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380",
	}
}

func (c *Cluster) apiServerArgs() []string {
	return []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=::",
		fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address=" + c.controlPlaneAddress().String(),
		"--tls-cert-file=" + c.certificate("kube-apiserver"),
		"--tls-private-key-file=" + c.key("kube-apiserver"),
		"--client-ca-file=" + c.certificate("ca"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--service-cluster-ip-range=" + c.serviceCIDRs(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.key("service-account"),
		"--service-account-signing-key-file=" + c.key("service-account"),
		"--kubelet-client-certificate=" + c.certificate("kubelet-client"),
		"--kubelet-client-key=" + c.key("kubelet-client"),
		"--kubelet-preferred-address-types=InternalIP",
		// No kube-proxy runs beside the API server: it reaches webhooks and
		// aggregated APIs by their pods' addresses.
		"--enable-aggregator-routing=true",
		"--requestheader-client-ca-file=" + c.certificate("ca"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + c.certificate("front-proxy-client"),
		"--proxy-client-key-file=" + c.key("front-proxy-client"),
		"--audit-policy-file=" + c.path("audit.yaml"),
		"--audit-log-path=" + c.log("audit"),
	}
}

// writeAuditPolicy has the API server note who asked for what, of service accounts: what tests hold against their roles.
func (c *Cluster) writeAuditPolicy() error {
	policy, err := render("audit.yaml", nil)
	if err != nil {
		return err
	}
	return writeFile(c.path("audit.yaml"), policy, 0o644)
}

func (c *Cluster) controllerManagerArgs() []string {
	return append(c.componentKubeconfigs("kube-controller-manager"),
		"--root-ca-file="+c.certificate("ca"),
		"--cluster-signing-cert-file="+c.certificate("ca"),
		"--cluster-signing-key-file="+c.key("ca"),
		"--service-account-private-key-file="+c.key("service-account"),
		"--use-service-account-credentials",
		"--service-cluster-ip-range="+c.serviceCIDRs(),
		"--cluster-cidr="+c.podCIDRs(),
	)
}

// componentKubeconfigs are the flags that the controller manager and the scheduler share.
func (c *Cluster) componentKubeconfigs(name string) []string {
	return []string{
		"--kubeconfig=" + c.kubeconfig(name),
		"--authentication-kubeconfig=" + c.kubeconfig(name),
		"--authorization-kubeconfig=" + c.kubeconfig(name),
		"--leader-elect=false",
	}
}

func (c *Cluster) makeNodeObjects(ctx context.Context) error {
	type object struct {
		Name     string
		PodCIDRs []netip.Prefix
	}
	var objects []object
	for _, n := range c.nodes() {
		objects = append(objects, object{n.name(), n.podCIDRs()})
	}
	manifest, err := render("nodes.yaml", objects)
	if err != nil {
		return err
	}
	_, err = c.kubectl(ctx, string(manifest), "create", "-f", "-")
	return err
}

// kubectl runs kubectl as the cluster's administrator and returns what it prints.
func (c *Cluster) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	argv := c.inControlPlane(append([]string{"kubectl"}, args...))
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = c.clientEnvironment()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// A Ctrl-C reaches kubectl through ctx.
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// await polls try until it succeeds. It fails when one of the components ends,
// after timeout, and when ctx ends.
func await(ctx context.Context, what string, timeout time.Duration, components []*running, try func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		for _, r := range components {
			select {
			case <-r.done:
				return r.failure()
			default:
			}
		}
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not ready after %s: %w", what, timeout, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
