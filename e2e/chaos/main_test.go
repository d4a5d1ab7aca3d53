//go:build e2e

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

// What all tests share.
var (
	test  *cluster.Cluster
	build *engine.Build
	api   client.Client
)

// The nodes. The pods whose connections are counted are on the first two.
var (
	nodes  = []string{"n1", "n2", "n3"}
	steady = nodes[:2]
	third  = nodes[2]
)

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := 1
	err := setUp(ctx)
	if err == nil {
		done := context.AfterFunc(ctx, func() { os.Exit(1) }) // the cluster's reaper does the rest
		code = m.Run()
		done()
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
		return errors.New("chaos needs root: its cluster makes namespaces, mounts and cgroups")
	}
	repo, err := cluster.FindRepo()
	if err != nil {
		return err
	}
	if build, err = engine.Make(ctx, repo, os.Stdout); err != nil {
		return err
	}
	if os.Getenv("RACE") != "" {
		if err := makeRace(ctx, repo); err != nil {
			return err
		}
	}
	test = &cluster.Cluster{Name: "chaos", Program: filepath.Join(repo, "bin", "cluster"), Repo: repo, Log: os.Stdout}
	already, err := test.Up(ctx, fmt.Sprintf("--nodes=%d", len(nodes)))
	if err != nil {
		return err
	}
	if err := engine.Install(ctx, test, build); err != nil {
		return err
	}
	if already {
		if err := engine.Restart(ctx, test); err != nil {
			return err
		}
	}
	if api, err = test.Client(ctx); err != nil {
		return err
	}
	return makeWorld(ctx)
}

func tearDown() error {
	if test == nil {
		return nil
	}
	if os.Getenv("KEEP") != "" {
		return test.Keep()
	}
	return test.Down()
}

// eventually polls until f returns no error, and ends the test if that takes longer than a node may need on a busy machine.
func eventually(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	within(t, 90*time.Second, what, f)
}

func within(t *testing.T, timeout time.Duration, what string, f func(ctx context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, timeout, true, func(ctx context.Context) (bool, error) {
		last = f(ctx)
		return last == nil, nil
	})
	if err != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		t.Fatalf("%s: %v: %v\n%s", what, err, last, engine.Describe(ctx, test))
	}
}

// must ends the test at an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
