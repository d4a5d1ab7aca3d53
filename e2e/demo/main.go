// Command demo shows kidoban at work: on a cluster of its own it deploys a small shop, measures who reaches whom by real
// connections, applies NetworkPolicies and measures again. It fails if one connection does not go as the policies say.
//
// Environment: KEEP=1 leaves the cluster up, with its map for a browser; NODES and PROXY_MODE are those of `cluster up`; NO_COLOR switches colours off.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/shop"
)

// inForceTimeout is how long policies may take from the API server to every node.
const inForceTimeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	repo, err := cluster.FindRepo()
	if err != nil {
		return err
	}
	d := &demo{
		out:     os.Stdout,
		start:   time.Now(),
		style:   matrix.Style{Color: term.IsTerminal(int(os.Stdout.Fd())) && os.Getenv("NO_COLOR") == ""},
		cluster: &cluster.Cluster{Name: "demo", Program: filepath.Join(repo, "bin", "cluster"), Repo: repo, Log: os.Stdout},
	}
	d.step("building the controller, the agent, the observer, the plugin and the probe (a first time takes minutes)")
	build, err := engine.Make(ctx, d.cluster.Repo, d.out)
	if err != nil {
		return err
	}
	if err := d.buildPlugin(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.leave(ctx, err == nil)) }()
	return d.show(ctx, build)
}

type demo struct {
	out     io.Writer
	start   time.Time
	style   matrix.Style
	cluster *cluster.Cluster
}

func (d *demo) show(ctx context.Context, build *engine.Build) error {
	d.step("bringing a cluster up")
	nodes, proxyMode := cmp.Or(os.Getenv("NODES"), "2"), cmp.Or(os.Getenv("PROXY_MODE"), "nftables")
	if err := d.cluster.UpAnew(ctx, "--nodes="+nodes, "--proxy-mode="+proxyMode); err != nil {
		return err
	}
	d.step("installing kidoban: kubectl apply -k config/overlays/local, with config/components/observer")
	if err := engine.Install(ctx, d.cluster, build, engine.ObserverComponents...); err != nil {
		return err
	}
	if err := engine.AwaitObserver(ctx, d.cluster); err != nil {
		return err
	}
	if err := d.kubectl(ctx, "-n", engine.Namespace, "get", "pods", "-o", "wide"); err != nil {
		return err
	}
	d.step("deploying the shop: kubectl apply -k examples/shop")
	s, err := shop.Deploy(ctx, d.cluster, build.Probe)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := d.kubectl(ctx, "get", "pods", "-A", "-l", "app.kubernetes.io/part-of=shop", "-o", "wide"); err != nil {
		return err
	}

	d.step("connecting from everywhere to everywhere, without any NetworkPolicy")
	tables, err := s.AwaitInForce(ctx, inForceTimeout)
	d.draw(tables)
	if err != nil {
		return err
	}
	d.style.Legend(d.out)

	d.step("applying NetworkPolicies: kubectl apply -k examples/shop/policies")
	if err := s.ApplyPolicies(ctx); err != nil {
		return err
	}
	applied := time.Now()
	d.style.Meaning = true
	tables, err = s.AwaitInForce(ctx, inForceTimeout)
	if err != nil {
		d.draw(tables)
		return errors.Join(err, errors.New(engine.Describe(ctx, d.cluster)))
	}
	d.step("in force on all nodes within %.1f s; what the controller made of them:", time.Since(applied).Seconds())
	for _, kind := range []string{"networkpolicies", "policyendpoints", "policyendpointslices"} {
		if err := d.kubectl(ctx, "get", kind, "-A"); err != nil {
			return err
		}
	}

	d.step("connecting again, beside what the policies mean")
	tables, err = s.Measure(ctx)
	if err != nil {
		return err
	}
	d.draw(tables)
	d.style.Legend(d.out)
	if err := shop.Verify(tables); err != nil {
		return err
	}
	n := 0
	for _, t := range tables {
		n += len(t.Probes)
	}
	d.step("all %d connections went as the policies say", n)
	d.step("what the observer has of them: kubectl kidoban events --verdict DENY")
	return d.denials(ctx)
}

// plugin is kubectl-kidoban, in bin/ like the program that makes clusters.
const plugin = "kubectl-kidoban"

func (d *demo) buildPlugin(ctx context.Context) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join("bin", plugin), "./cmd/kubectl-kidoban")
	build.Dir, build.Stdout, build.Stderr = d.cluster.Repo, d.out, d.out
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build.Run()
}

const (
	// observedTimeout is how long the observer may take to show a connection: agents push every few seconds.
	observedTimeout = 30 * time.Second
	// shownDenials is how many denials are printed.
	shownDenials = 6
)

// denials prints the newest denials that the observer has.
func (d *demo) denials(ctx context.Context) error {
	for deadline := time.Now().Add(observedTimeout); ; {
		out, err := cluster.Output(d.cluster.Outside(ctx, filepath.Join(d.cluster.Repo, "bin", plugin), "events", "--since", "5m", "--verdict", "DENY"))
		if err != nil {
			return err
		}
		if lines := cluster.Lines(out); len(lines) > 0 {
			fmt.Fprintln(d.out)
			for _, line := range lines[max(0, len(lines)-shownDenials):] {
				fmt.Fprintln(d.out, line)
			}
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the observer has no denied connection")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// leave takes the cluster down, or prints how to use it. The map of a demo that failed is not started.
func (d *demo) leave(ctx context.Context, well bool) error {
	if os.Getenv("KEEP") == "" {
		d.step("taking the cluster down (KEEP=1 keeps it)")
		return d.cluster.Down()
	}
	var address string
	var err error
	if well {
		address, err = d.serveMap(ctx)
	}
	fmt.Fprintf(d.out, `
The cluster is still up:
  bin/cluster --name %[1]s kubectl -- get pe,pes -A
  bin/cluster --name %[1]s exec --pod shop/POD -- COMMAND
  bin/cluster --name %[1]s exec -- bin/kubectl-kidoban status
  bin/cluster --name %[1]s down

`, d.cluster.Name)
	if address != "" {
		fmt.Fprintf(d.out, `The map of its connections, for a browser on this machine. The address works once; for another one:
  bin/cluster --name %[1]s exec --publish %[2]d -- bin/kubectl-kidoban ui --port %[2]d

  %[3]s
`, d.cluster.Name, mapPort+1, address)
	}
	return errors.Join(err, d.cluster.Keep())
}

const (
	// mapPort is where the map is served on the loopback address, unless another process has the port.
	mapPort = 8700
	// mapTimeout is how long the map may take to read the cluster.
	mapTimeout = time.Minute
)

// serveMap starts `kubectl kidoban ui`, which goes on after the demo until the cluster is taken down, and returns its address.
func (d *demo) serveMap(ctx context.Context) (string, error) {
	printed := d.cluster.Dir("log", "map.log")
	out, err := os.Create(printed)
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close() }()
	port := fmt.Sprint(freePort())
	cmd := exec.Command(d.cluster.Program, "--name", d.cluster.Name, "exec", "--publish", port, "--", filepath.Join(d.cluster.Repo, "bin", plugin), "ui", "--port", port)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.cluster.Repo, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl+C is for the demo
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for deadline := time.After(mapTimeout); ; {
		text, err := os.ReadFile(printed)
		if err != nil {
			return "", err
		}
		for _, line := range cluster.Lines(string(text)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "http://") {
				return line, nil
			}
		}
		select {
		case err := <-ended:
			return "", fmt.Errorf("the map ended: %w: %s", err, text)
		case <-deadline:
			return "", errors.Join(fmt.Errorf("the map prints no address within %s: %s", mapTimeout, text), cmd.Process.Signal(syscall.SIGTERM))
		case <-ctx.Done():
			return "", errors.Join(ctx.Err(), cmd.Process.Signal(syscall.SIGTERM))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freePort is mapPort, or another one if that is in use.
func freePort() int {
	for _, port := range []int{mapPort, 0} {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			port = l.Addr().(*net.TCPAddr).Port
			_ = l.Close()
			return port
		}
	}
	return mapPort // what serves the map reports why it cannot
}

func (d *demo) step(format string, args ...any) {
	fmt.Fprintf(d.out, "\n%5.1fs  %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) kubectl(ctx context.Context, args ...string) error {
	out, err := cluster.Output(d.cluster.Kubectl(ctx, args...))
	fmt.Fprintf(d.out, "\n%s", out)
	return err
}

func (d *demo) draw(tables []*matrix.Table) {
	for _, t := range tables {
		fmt.Fprintln(d.out)
		d.style.Draw(d.out, t)
	}
	fmt.Fprintln(d.out)
}
