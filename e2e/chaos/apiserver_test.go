//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/reach"
)

// controlPlane in the order in which it starts.
var controlPlane = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// stop ends parts of the cluster. start starts some of them again, or all that are left; the test's end does, too.
func stop(t *testing.T, components ...string) (start func(...string)) {
	t.Helper()
	left := slices.Clone(components)
	start = func(some ...string) {
		t.Helper()
		if len(some) == 0 {
			some = slices.Clone(left)
		}
		defer refusals.expect()()
		for _, component := range some {
			left = slices.DeleteFunc(left, func(c string) bool { return c == component })
			if err := test.Start(context.Background(), component); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() { start() })
	must(t, test.Stop(t.Context(), components...))
	return start
}

func apiStopped(t *testing.T, x *trial) {
	agents := engineNow(t, "agent")
	start := stop(t, controlPlane[:2]...)
	x.traffic.run(t, 5*time.Second)
	must(t, test.SignalPod(t.Context(), &agents[0], "KILL")) // one has to start without an API server
	x.traffic.run(t, 20*time.Second)
	start()
	back := time.Now()
	x.canary.toggle(t)
	x.heal = x.canary.await(t, back)
	awaitEngine(t)
}

// etcdRestored goes back to what etcd held a while before. As the documents of etcd ask for restores below watchers, its revision is raised above
// all that clients have seen, and what is older is compacted.
func etcdRestored(t *testing.T, x *trial) {
	const bystander = "bystander"
	target := targets(startPod(t, servingPod(bystander, bystander, third)), "tcp", servedPort)
	caller := member(t, stranger, steady[0])
	snapshot := filepath.Join(t.TempDir(), "etcd")
	start := stop(t, controlPlane...)
	copyTree(t, test.Dir("etcd"), snapshot)
	start()
	x.canary.toggle(t)
	create(t, ingress("late", bystander, friend, tcp(servedPort)))
	x.canary.await(t, time.Now())
	eventually(t, "the later policy is in force", func(ctx context.Context) error { return want(ctx, caller, target, reach.TimedOut) })
	seen := etcdRevision(t)

	start = stop(t, controlPlane...)
	must(t, os.RemoveAll(test.Dir("etcd")))
	copyTree(t, snapshot, test.Dir("etcd"))
	start("etcd")
	for etcdRevision(t) <= seen {
		etcd(t, "put", map[string]any{"key": b64("/kidoban-chaos"), "value": b64("x")})
	}
	etcd(t, "compaction", map[string]any{"revision": strconv.FormatInt(etcdRevision(t), 10)})
	start()
	back := time.Now()
	x.canary.open = 1 - x.canary.open // as it was before
	x.heal = x.canary.await(t, back)
	// Only the snapshot shows that the later policy is gone.
	eventually(t, "the policy that the snapshot does not have is not in force", func(ctx context.Context) error {
		return want(ctx, caller, target, reach.Open)
	})
	awaitEngine(t)
}

// watchesExpired stops all readers and changes much, and forgets the revisions that they would go on from.
func watchesExpired(t *testing.T, x *trial) {
	pods := append(engineNow(t, "agent"), engineNow(t, "controller")...)
	for _, pod := range pods {
		must(t, test.SignalPod(t.Context(), &pod, "STOP"))
		t.Cleanup(func() { _ = test.SignalPod(context.Background(), &pod, "CONT") })
	}
	x.canary.toggle(t)
	var many []*networkingv1.NetworkPolicy
	for i := range 50 {
		p := ingress(fmt.Sprintf("expired-%d", i), server, friend, tcp(servedPort))
		must(t, api.Create(t.Context(), p))
		many = append(many, p)
	}
	for _, p := range many {
		must(t, api.Delete(t.Context(), p))
	}
	start := stop(t, "kube-apiserver")
	etcd(t, "compaction", map[string]any{"revision": strconv.FormatInt(etcdRevision(t), 10), "physical": true})
	start()
	x.traffic.run(t, 3*time.Second)
	for _, pod := range pods {
		must(t, test.SignalPod(t.Context(), &pod, "CONT"))
	}
	x.heal = x.canary.await(t, time.Now())
	awaitEngine(t)
}

// etcd makes a call of etcd's JSON gateway, as "put".
func etcd(t *testing.T, call string, body any) []byte {
	t.Helper()
	b, err := json.Marshal(body)
	must(t, err)
	client := http.Client{Transport: &http.Transport{DialContext: test.DialControlPlane, DisableKeepAlives: true}, Timeout: 10 * time.Second}
	var answer []byte
	eventually(t, "etcd answers to "+call, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:2379/v3/kv/"+call, bytes.NewReader(b))
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, err = io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, answer)
		}
		return err
	})
	return answer
}

func etcdRevision(t *testing.T) int64 {
	t.Helper()
	var answer struct{ Header struct{ Revision string } }
	must(t, json.Unmarshal(etcd(t, "range", map[string]any{"key": b64("/kidoban-chaos")}), &answer))
	revision, err := strconv.ParseInt(answer.Header.Revision, 10, 64)
	must(t, err)
	return revision
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp %s %s: %v: %s", from, to, err, out)
	}
}
