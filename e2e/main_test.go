//go:build e2e

package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/shop"
)

// inForceTimeout is how long a change may take to be in force on every node, on a busy machine.
const inForceTimeout = 2 * time.Minute

// What all tests share.
var (
	build *engine.Build
	test  *cluster.Cluster
	store *shop.Shop
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := 1
	err := setUp(ctx)
	if err == nil {
		// An interrupt ends the tests at once; the cluster's reaper does the rest.
		done := context.AfterFunc(ctx, func() { os.Exit(1) })
		began := time.Now()
		code = m.Run()
		done()
		if page := os.Getenv("CNI_REPORT"); page != "" && code == 0 {
			err = writeLayout(ctx, page, time.Since(began))
		}
	}
	err = errors.Join(err, tearDown())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func setUp(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("end-to-end tests need root: their cluster makes namespaces, mounts and cgroups")
	}
	repo, err := cluster.FindRepo()
	if err != nil {
		return err
	}
	if build, err = engine.Make(ctx, repo, os.Stdout); err != nil {
		return err
	}
	test = &cluster.Cluster{Name: cmp.Or(os.Getenv("CLUSTER"), "e2e"), Program: filepath.Join(repo, "bin", "cluster"), Repo: repo, Log: os.Stdout}
	already, err := test.Up(ctx, append([]string{"--nodes=2"}, layout()...)...)
	if err != nil {
		return err
	}
	var components []string
	if networkWaits() {
		components = append(components, "vpc-cni")
	}
	if bootIsGuarded() {
		components = append(components, "boot-guard")
	}
	if err := engine.Install(ctx, test, build, components...); err != nil {
		return err
	}
	if already {
		if err := engine.Restart(ctx, test); err != nil {
			return err
		}
	}
	store, err = shop.Deploy(ctx, test, build.Probe)
	return err
}

// layout is the part of the flags of `cluster up` that chooses CNI plugin and families. Without any it is a cluster with ptp and both.
func layout() []string { return strings.Fields(os.Getenv("CLUSTER_FLAGS")) }

// networkWaits reports whether a pod gets its network from the VPC CNI when its policies are in force.
func networkWaits() bool {
	return slices.ContainsFunc(layout(), func(flag string) bool { return strings.HasPrefix(flag, "--vpc-policy-mode=") })
}

// bootIsGuarded reports whether the container runtime starts no container before the agent is connected.
func bootIsGuarded() bool { return slices.Contains(layout(), "--nri-required=kidoban") }

func tearDown() error {
	var err error
	if store != nil {
		err = store.Close()
	}
	if test == nil {
		return err
	}
	if os.Getenv("KEEP") != "" {
		return errors.Join(err, test.Keep())
	}
	return errors.Join(err, test.Down())
}

// awaitInForce waits until every connection goes as the NetworkPolicies of the moment say, and then looks again: it must
// stay so.
func awaitInForce(t *testing.T) []*matrix.Table {
	t.Helper()
	tables, err := store.AwaitInForce(t.Context(), inForceTimeout)
	if err != nil {
		fail(t, tables, err)
	}
	tables, err = store.Measure(t.Context())
	if err == nil {
		err = shop.Verify(tables)
	}
	if err != nil {
		fail(t, tables, fmt.Errorf("it was in force, and is no longer: %w", err))
	}
	return tables
}

func fail(t *testing.T, tables []*matrix.Table, err error) {
	t.Helper()
	style := matrix.Style{Meaning: true}
	for _, table := range tables {
		style.Draw(t.Output(), table)
	}
	// The test's own context may be what ended.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	t.Fatalf("%v\n%s", err, engine.Describe(ctx, test))
}
