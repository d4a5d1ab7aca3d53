// Command cnp runs upstream's conformance suite of ClusterNetworkPolicy against this tree, on a cluster of three nodes of its own.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/conformance/table"
	"github.com/kidoban/kidoban/e2e/engine"
)

// image is what the suite's pods run.
const image = "registry.k8s.io/e2e-test-images/agnhost:2.45"

type options struct {
	proxyMode, ipFamilies, only, report, page string
	wait                                      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.proxyMode, "proxy-mode", "nftables", "of kube-proxy: nftables or iptables")
	flag.StringVar(&o.ipFamilies, "ip-families", "IPv4,IPv6", "of the cluster")
	flag.StringVar(&o.only, "only", "", "names of the tests to run, separated by commas; empty: all")
	flag.StringVar(&o.report, "write", "", "file for the suite's report of all tests, if none fails")
	flag.StringVar(&o.page, "page", "", "page whose table gets the result of all tests, if none fails")
	flag.DurationVar(&o.wait, "wait", time.Second, "for an answer, before a connection counts as denied")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := o.main(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cnp: %v\n", err)
		os.Exit(1)
	}
}

func (o options) main(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	repo, err := cluster.FindRepo()
	if err != nil {
		return err
	}
	dist := filepath.Join(repo, "dist", "cnp")
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return err
	}
	suite := filepath.Join(dist, "suite.test")
	if err := run(ctx, repo, "go", "-C", "e2e/cnp/suite", "test", "-tags=e2e", "-c", "-o", suite, "."); err != nil {
		return err
	}
	c := &cluster.Cluster{Name: cmp.Or(os.Getenv("CLUSTER"), "cnp"), Program: filepath.Join(repo, "bin", "cluster"), Repo: repo, Log: os.Stdout}
	build, err := engine.Make(ctx, repo, os.Stdout)
	if err != nil {
		return err
	}
	tar, err := packImage(ctx, c, repo, dist)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Down()) }()
	if err := c.UpAnew(ctx, "--nodes=3", "--proxy-mode="+o.proxyMode, "--ip-families="+o.ipFamilies); err != nil {
		return err
	}
	if err := c.Load(ctx, tar); err != nil {
		return err
	}
	if err := engine.Install(ctx, c, build); err != nil {
		return err
	}
	crd, err := cluster.Output(exec.CommandContext(ctx, "go", "-C", filepath.Join(repo, "e2e/cnp/suite"), "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api"))
	if err != nil {
		return err
	}
	if _, err := cluster.Output(c.Kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(strings.TrimSpace(crd), "config/crd/experimental"))); err != nil {
		return err
	}
	return o.test(ctx, c, suite, dist)
}

// test runs the suite where the API server is reached.
func (o options) test(ctx context.Context, c *cluster.Cluster, suite, dist string) error {
	kubeconfig, err := cluster.Output(c.Command(ctx, "kubeconfig"))
	if err != nil {
		return err
	}
	version, err := cluster.Output(exec.CommandContext(ctx, "git", "-C", c.Repo, "describe", "--always", "--tags"))
	if err != nil {
		return err
	}
	report := filepath.Join(dist, "report.yaml")
	if err := os.Remove(report); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	test := c.Outside(ctx, suite, "-test.v", "-test.timeout=40m")
	test.Env = append(os.Environ(), "KUBECONFIG="+strings.TrimSpace(kubeconfig), "REPORT="+report, "ONLY="+o.only,
		"VERSION="+strings.TrimSpace(version), "WAIT="+o.wait.String())
	test.Stdout, test.Stderr = os.Stdout, os.Stderr
	start := time.Now()
	failed := test.Run()
	took := time.Since(start).Round(time.Second)
	if failed != nil {
		failed = errors.Join(failed, errors.New(engine.Describe(ctx, c)))
	}
	data, err := os.ReadFile(report)
	if err != nil {
		return errors.Join(failed, err)
	}
	fmt.Printf("%s", data)
	if failed != nil || o.only != "" {
		return failed
	}
	if o.page != "" {
		if err := o.writeRow(ctx, c, data, took); err != nil {
			return err
		}
	}
	if o.report == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(o.report), 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.report, data, 0o644)
}

// writeRow writes what the suite's report counts into the page's table.
func (o options) writeRow(ctx context.Context, c *cluster.Cluster, report []byte, took time.Duration) error {
	type channel struct {
		Statistics struct{ Passed, Failed, Skipped int }
	}
	var counts struct {
		Profiles []struct{ Standard, Experimental channel }
	}
	if err := yaml.Unmarshal(report, &counts); err != nil {
		return fmt.Errorf("the suite's report: %w", err)
	}
	about, err := table.Describe(ctx, c)
	if err != nil {
		return err
	}
	row := table.Row{ProxyMode: o.proxyMode, IPFamilies: o.ipFamilies, Took: took, About: *about}
	for _, p := range counts.Profiles {
		for _, ch := range []channel{p.Standard, p.Experimental} {
			row.Passed += ch.Statistics.Passed
			row.Failed += ch.Statistics.Failed
			row.LeftOut += ch.Statistics.Skipped
		}
	}
	return table.Write(o.page, "make conformance-cnp", row, "")
}

// packImage packs agnhost, which hack/cluster builds from source, behind our program of that name.
func packImage(ctx context.Context, c *cluster.Cluster, repo, dist string) (tar string, err error) {
	build := c.Command(ctx, "build", "--only=e2e")
	build.Stderr = os.Stdout
	bin, err := build.Output()
	if err != nil {
		return "", fmt.Errorf("build agnhost: %w", err)
	}
	ours := filepath.Join(dist, "agnhost")
	if err := run(ctx, repo, "go", "-C", "e2e", "build", "-trimpath", "-buildvcs=false", "-o", ours, "./cnp/agnhost"); err != nil {
		return "", err
	}
	tar = filepath.Join(dist, "agnhost.tar")
	return tar, run(ctx, repo, "bin/image", "--platform=linux/"+runtime.GOARCH, "--tag="+image, "--user=0", "--output="+tar,
		"--entrypoint=/agnhost", "--entrypoint=pause", filepath.Join(strings.TrimSpace(string(bin)), "agnhost")+":/agnhost-kubernetes", ours+":/agnhost", ours+":/bin/bash")
}

func run(ctx context.Context, dir string, argv ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%v: %w", argv, err)
	}
	return nil
}
