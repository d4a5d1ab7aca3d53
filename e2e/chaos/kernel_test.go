//go:build e2e

package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// onNode runs one of the machine's commands on a node.
func onNode(t *testing.T, node string, argv ...string) string {
	t.Helper()
	out, err := cluster.Output(test.OnNode(context.Background(), node, argv...))
	must(t, err)
	return out
}

// diskFull gives a node's flow log a disk of 64 KiB that is full.
func diskFull(t *testing.T, x *trial) {
	node := steady[0]
	agentOf := func() *corev1.Pod {
		for _, agent := range engineNow(t, "agent") {
			if agent.Spec.NodeName == node && agent.DeletionTimestamp == nil {
				return &agent
			}
		}
		t.Fatalf("%s has no agent", node)
		return nil
	}
	const dir = "/var/log/kidoban"
	onNode(t, node, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir)
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			onNode(t, node, "umount", "-l", dir)
			remove(t, agentOf()) // a pod keeps the mount that it was born with
		}
	}
	t.Cleanup(unmount)
	onNode(t, node, "sh", "-c", "head -c 65536 /dev/zero > "+dir+"/full; ! echo x > "+dir+"/more")
	must(t, api.Delete(t.Context(), agentOf()))
	awaitEngine(t)
	x.traffic.run(t, 5*time.Second)
	x.canary.toggle(t)
	x.canary.await(t, time.Now()) // it works on
	x.traffic.run(t, 5*time.Second)
	awaitEngine(t)
	unmount()
	lifted := time.Now()
	awaitEngine(t)
	x.canary.toggle(t)
	x.heal = x.canary.await(t, lifted)
}

// flood opens connections that a server on another node refuses, as fast as one pod can, and looks at what that leaves behind there.
func flood(t *testing.T, x *trial) {
	there := steady[1]
	flooder := startPod(t, servingPod("flooder", stranger, steady[0]))
	flows, logged := conntrackCount(t, there), flowLogSize(t, there)
	start := time.Now()
	w, err := test.WatchEvery(context.Background(), 2*time.Millisecond, flooder,
		append(targets(member(t, server, there), "tcp", servedPort), targets(member(t, server, there), "tcp", shutPort)...), nil, 200*time.Millisecond)
	must(t, err)
	x.traffic.run(t, 10*time.Second)
	results, err := w.Stop()
	must(t, err)
	lasted := time.Since(start)
	var refused tally
	for _, r := range results {
		refused.count(flooder.Name, r, false)
	}
	x.aside(fmt.Sprintf("… the flood itself, %.0f attempts a second", float64(len(results))/lasted.Seconds()), nothingWrong, refused)
	flows, logged = conntrackCount(t, there)-flows, flowLogSize(t, there)-logged
	t.Logf("%d attempts in %s: the server's node has %d more entries in conntrack and %d bytes more of flow log", len(results), lasted.Round(time.Second), flows, logged)
	// The steady traffic opens up to 40 connections a second; an entry lasts 120 s at most.
	if flows > len(results)/10 {
		t.Errorf("%d refused attempts left %d entries in conntrack of the server's node", len(results), flows)
	}
	// By default 100 kinds of events at once and 50 a second for each pod, a line each of some 300 bytes, and a few pods.
	if bound := int64((100 + 50*lasted.Seconds()) * 300 * 4); logged > bound {
		t.Errorf("the flow log has grown by %d bytes, the bound is %d", logged, bound)
	}
	x.canary.toggle(t)
	x.heal = x.canary.await(t, time.Now())
}

func conntrackCount(t *testing.T, node string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(onNode(t, node, "cat", "/proc/sys/net/netfilter/nf_conntrack_count")))
	must(t, err)
	return n
}

func flowLogSize(t *testing.T, node string) int64 {
	t.Helper()
	info, err := os.Stat(test.Dir(node, "var", "log", "kidoban", "flow.log"))
	if os.IsNotExist(err) {
		return 0
	}
	must(t, err)
	return info.Size()
}

// conntrackFull fills a node's table with flows that the kernel may not drop early.
func conntrackFull(t *testing.T, x *trial) {
	node := steady[1]
	limit, err := strconv.Atoi(strings.TrimSpace(onNode(t, node, "cat", "/proc/sys/net/netfilter/nf_conntrack_max")))
	must(t, err)
	var entries bytes.Buffer
	for i := range limit {
		fmt.Fprintf(&entries, "-I -s 198.18.%d.%d -d 198.19.0.1 -p udp --sport %d --dport 9 -t 600 -u SEEN_REPLY,ASSURED\n", i/60000/250, i/60000%250+1, i%60000+1)
	}
	t.Cleanup(func() { emptyConntrack(t, node) })
	load := test.OnNode(t.Context(), node, "conntrack", "-R", "-")
	load.Stdin = &entries
	if out, err := load.CombinedOutput(); err != nil { // the last ones find it full
		t.Logf("conntrack -R: %v: %.300s", err, out)
	}
	if n := conntrackCount(t, node); n < limit-limit/100 {
		t.Fatalf("the table has %d entries of %d: it is not full", n, limit)
	}
	x.traffic.run(t, 10*time.Second)
	emptyConntrack(t, node)
	empty := time.Now()
	eventually(t, "connections are made again", func(ctx context.Context) error {
		return want(ctx, member(t, friend, steady[0]), targets(member(t, server, node), "tcp", servedPort), reach.Open)
	})
	x.canary.toggle(t)
	x.heal = x.canary.await(t, empty)
}

func emptyConntrack(t *testing.T, node string) {
	_ = test.OnNode(context.Background(), node, "conntrack", "-D", "-f", "ipv4", "-p", "udp", "-d", "198.19.0.1").Run() // fails where there is none
	if n := conntrackCount(t, node); n > 100000 {
		t.Errorf("%d entries are left", n)
	}
}
