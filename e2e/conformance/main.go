// Command conformance runs Kubernetes' own end-to-end suite for NetworkPolicies against this tree, on a cluster of three
// nodes of its own. No failure is accepted, and no spec is left out without a reason. docs/conformance.md has the results.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/conformance/table"
	"github.com/kidoban/kidoban/e2e/engine"
)

// everything is the focus whose results go into the table.
const everything = "Netpol"

type options struct {
	proxyMode, ipFamilies, focus string
	cni                          string
	procs                        int
	page                         string
	keep                         bool
}

func main() {
	var o options
	flag.StringVar(&o.proxyMode, "proxy-mode", "nftables", "of kube-proxy: nftables or iptables")
	flag.StringVar(&o.ipFamilies, "ip-families", "IPv4,IPv6", "of the cluster; the suite's Services have the first")
	flag.StringVar(&o.cni, "cni", "ptp", "of the cluster; the table has ptp's results")
	flag.StringVar(&o.focus, "focus", everything, "regular expression that the specs' names match")
	flag.IntVar(&o.procs, "procs", 4, "specs at a time")
	flag.StringVar(&o.page, "write", "", "page whose table gets the results, if the focus is all specs")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster up")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := o.main(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
		os.Exit(1)
	}
}

func (o options) main(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	focus, err := regexp.Compile(o.focus)
	if err != nil {
		return fmt.Errorf("focus: %w", err)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: this takes flags only", flag.Args())
	}
	repo, err := cluster.FindRepo()
	if err != nil {
		return err
	}
	c := &cluster.Cluster{Name: cmp.Or(os.Getenv("CLUSTER"), "conformance"), Program: filepath.Join(repo, "bin", "cluster"), Repo: repo, Log: os.Stdout}
	build, err := engine.Make(ctx, repo, os.Stdout)
	if err != nil {
		return err
	}
	s, err := findSuite(ctx, c)
	if err != nil {
		return err
	}
	image, err := s.packImage(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if o.keep {
			err = errors.Join(err, c.Keep())
		} else {
			err = errors.Join(err, c.Down())
		}
	}()
	if err := c.UpAnew(ctx, "--nodes=3", "--proxy-mode="+o.proxyMode, "--ip-families="+o.ipFamilies, "--cni="+o.cni); err != nil {
		return err
	}
	if err := c.Load(ctx, image); err != nil {
		return err
	}
	if err := engine.Install(ctx, c, build); err != nil {
		return err
	}
	return o.test(ctx, s, focus)
}

func (o options) test(ctx context.Context, s *suite, focus *regexp.Regexp) error {
	start := time.Now()
	dir := filepath.Join(s.cluster.Repo, "dist", "conformance", o.proxyMode+"-"+o.ipFamilies)
	left := leftOut()
	junit, err := s.run(ctx, dir, o.focus, left, o.procs)
	if junit == "" || ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	r, errRead := readResults(junit, focus, left)
	if errRead != nil {
		return errors.Join(err, errRead)
	}
	took := time.Since(start).Round(time.Second)
	r.print(os.Stdout, took)
	fmt.Printf("JUnit: %s\n", junit)
	if err := errors.Join(err, r.err()); err != nil {
		return errors.Join(err, errors.New(engine.Describe(ctx, s.cluster)))
	}
	if o.page == "" || o.focus != everything || o.cni != "ptp" {
		return nil
	}
	about, err := table.Describe(ctx, s.cluster)
	if err != nil {
		return err
	}
	return table.Write(o.page, "make conformance", table.Row{
		ProxyMode: o.proxyMode, IPFamilies: o.ipFamilies, Passed: len(r.passed), Failed: len(r.failed), LeftOut: len(r.leftOut), Took: took, About: *about,
	}, r.leftOutList())
}
