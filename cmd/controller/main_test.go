//go:build envtest

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
)

var kubeconfig, binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	config, stop, err := apitest.Start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = stop() }()
	dir, err := os.MkdirTemp("", "kidoban-controller-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	kubeconfig, binary = filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "controller")
	if err := writeKubeconfig(config); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	build := exec.Command("go", "build", "-ldflags", "-X github.com/kidoban/kidoban/internal/version.Version=v1.2.3-test", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func writeKubeconfig(c *rest.Config) error {
	out := clientcmdapi.NewConfig()
	out.Clusters["test"] = &clientcmdapi.Cluster{Server: c.Host, CertificateAuthorityData: c.CAData}
	out.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: c.CertData, ClientKeyData: c.KeyData}
	out.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	out.CurrentContext = "test"
	return clientcmd.WriteToFile(*out, kubeconfig)
}

// process is a running controller.
type process struct {
	cmd    *exec.Cmd
	output bytes.Buffer
	done   chan error
	ended  bool
}

func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, append([]string{"--kubeconfig=" + kubeconfig, "--namespace=default", "--stream-bind-address=0"}, args...)...), done: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		if !p.ended {
			_ = p.cmd.Process.Kill()
			if err := <-p.done; err == nil {
				t.Error("the controller ended by itself")
			}
		}
	})
	return p
}

// end waits for the process.
func (p *process) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.done:
		p.ended = true
		return err
	case <-time.After(60 * time.Second):
		t.Fatalf("still running: %s", p.cmd.Args)
		return nil
	}
}

// freeAddr uses a loopback address of this process's own: on 127.0.0.1, a connection of another process may take the
// port first.
func freeAddr(t *testing.T) string {
	t.Helper()
	pid := os.Getpid()
	l, err := net.Listen("tcp", netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(1 + pid>>16), byte(pid >> 8), byte(pid)}), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// get repeats a request until its status is 200.
func get(t *testing.T, url string) string {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		resp, err := http.Get(url)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return string(body)
			}
			err = fmt.Errorf("%s: %s", resp.Status, body)
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", url, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestLeaderAndFollowerBecomeReadyAndStop(t *testing.T) {
	for range 2 {
		metrics, probes := freeAddr(t), freeAddr(t)
		p := start(t, "--leader-elect", "--metrics-bind-address="+metrics, "--health-probe-bind-address="+probes)
		get(t, "http://"+probes+"/healthz")
		get(t, "http://"+probes+"/readyz")
		body := get(t, "http://"+metrics+"/metrics")
		for _, name := range []string{"kidoban_controller_policies", "kidoban_controller_groups", "kidoban_controller_slices", "kidoban_controller_addresses", "kidoban_controller_pod_address_to_write_duration_seconds_count"} {
			if !strings.Contains(body, "\n"+name+" ") {
				t.Errorf("no metric %s", name)
			}
		}
		defer func() {
			if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := p.end(t); err != nil {
				t.Errorf("%v; it said:\n%s", err, p.output.String())
			}
		}()
	}
}

func TestErrorsNameTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, arg := range []string{
		"--metrics-bind-address=" + taken.Addr().String(), "--health-probe-bind-address=" + taken.Addr().String(),
		"--max-addresses-per-slice=0", "--max-addresses-per-slice=1001", "--max-groups-per-namespace=0", "--max-addresses-per-namespace=0", "--namespace=", "--kube-api-qps=-1", "--kube-api-burst=0",
	} {
		p := start(t, "--metrics-bind-address=0", "--health-probe-bind-address=0", arg)
		flag, _, _ := strings.Cut(arg, "=")
		if err := p.end(t); err == nil || !strings.Contains(p.output.String(), flag) {
			t.Errorf("%s: %v; it said:\n%s", arg, err, p.output.String())
		}
	}
}

// The rate limit covers writes of all kinds together. 12 policies with one group each come to 36 writes. If each
// kind had a limit of its own, the 24 writes of PolicyEndpoints would take 2.4 s.
func TestTheRateLimitCoversAllKinds(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(networkingv1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	const policies = 12
	for i := range policies {
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint("budget-", i)}}
		peer := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"budget": fmt.Sprint(i)}}}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}
		if err := c.Create(t.Context(), np); err != nil {
			t.Fatal(err)
		}
	}
	start(t, "--metrics-bind-address=0", "--health-probe-bind-address=0", "--kube-api-qps=10", "--kube-api-burst=1")
	begun := time.Now() // before the first write
	deadline := begun.Add(2 * time.Minute)
	for reported := 0; reported < policies; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d policies are resolved", reported, policies)
		}
		time.Sleep(20 * time.Millisecond)
		asked := time.Now()
		var slices v1alpha1.PolicyEndpointSliceList
		var list v1alpha1.PolicyEndpointList
		if err := errors.Join(c.List(t.Context(), &slices), c.List(t.Context(), &list)); err != nil {
			t.Fatal(err)
		}
		if len(slices.Items)+len(list.Items) == 0 {
			begun = asked
		}
		reported = 0
		for i := range list.Items {
			if len(list.Items[i].Status.Conditions) > 0 {
				reported++
			}
		}
	}
	// One slice has all groups. Each kind by itself would be done after 1.2 s.
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("%d writes took %s at 10 a second", 1+2*policies, took)
	}
}

func TestVersion(t *testing.T) {
	p := start(t, "--version")
	if err := p.end(t); err != nil || p.output.String() != "v1.2.3-test\n" {
		t.Errorf("%v: %q", err, p.output.String())
	}
}
