//go:build e2e

package chaos

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

// smallVolume gives the observer a file system that is full at once.
const smallVolume = `{"spec":{"strategy":{"rollingUpdate":null,"type":"Recreate"},"template":{"spec":{"volumes":[{"name":"flows","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}]}}}}`

// observerFails installs the observer, and kills it, stops it and fills its disk while agents push to it.
func observerFails(t *testing.T, x *trial) {
	t.Cleanup(func() {
		if err := engine.RemoveObserver(context.Background(), test); err != nil {
			t.Error(err)
		}
	})
	must(t, engine.InstallObserver(t.Context(), test))
	x.traffic.run(t, 5*time.Second)

	killAll(t, engineNow(t, "observer"))
	x.canary.toggle(t)
	x.traffic.run(t, 5*time.Second)
	x.canary.await(t, time.Now())

	for _, pod := range engineNow(t, "observer") {
		must(t, test.SignalPod(t.Context(), &pod, "STOP"))
		t.Cleanup(func() { _ = test.SignalPod(context.Background(), &pod, "CONT") })
	}
	x.canary.toggle(t)
	x.traffic.run(t, 10*time.Second)
	x.canary.await(t, time.Now())
	for _, pod := range engineNow(t, "observer") {
		must(t, test.SignalPod(t.Context(), &pod, "CONT"))
	}

	_, err := cluster.Output(test.Kubectl(t.Context(), "-n", engine.Namespace, "patch", "deployment", engine.Observer, "--type=strategic", "-p", smallVolume))
	must(t, err)
	eventually(t, "the observer reports that it cannot store flows", func(ctx context.Context) error {
		logs, err := cluster.Output(test.Kubectl(ctx, "-n", engine.Namespace, "logs", "deployment/"+engine.Observer))
		if err != nil {
			return err
		}
		if !strings.Contains(logs, "Cannot store flows") {
			return errors.New("not in its log")
		}
		return nil
	})
	lifted := time.Now()
	x.canary.toggle(t)
	x.heal = x.canary.await(t, lifted)
	x.traffic.run(t, 5*time.Second)
}
