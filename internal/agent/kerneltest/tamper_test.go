package kerneltest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Where another process detached the program, the agent attaches it again, counts that, and cuts what was opened meanwhile.
func TestTheProgramIsDetached(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	n.swept(func() { n.policy(policyFor("deny", metav1.LabelSelector{})) })
	paths, err := filepath.Glob(filepath.Join(n.bpffs, "kidoban", "*", "link_ipv4"))
	check(t, err)
	l, err := link.LoadPinnedLink(paths[0], nil)
	check(t, err)
	defer func() { _ = l.Close() }()
	liveFlows(t, 1, 3)
	check(t, l.Detach())
	n.await("it is counted", func() bool { return n.metric("kidoban_agent_drift_entries_total") == 1 })
	n.await("what was opened meanwhile is cut", func() bool { return flowCount(t) == 0 })
	n.await("the agent is ready", n.ready)
}

// The maps are repaired also where there is nowhere to pin them, and all is pinned where there is again.
func TestTheBPFFileSystemIsUnmounted(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	n.policy(policyFor("deny", metav1.LabelSelector{}))
	pods := n.inKernel("pods")
	n.await("the pod is isolated", func() bool { return n.isolated(pods, 0) != 0 })
	check(t, unix.Mount("none", n.bpffs, "tmpfs", 0, ""))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = unix.Unmount(n.bpffs, unix.MNT_DETACH)
		}
	})
	n.await("it is said", func() bool { return !n.ready() && n.metric("kidoban_agent_programming_failures_total") > 0 })
	key, open := address(0).As16(), bpf.FilterPod{}
	check(t, pods.Put(&key, &open))
	n.await("the map is repaired", func() bool { return n.isolated(pods, 0) != 0 })
	for _, name := range []string{"second", "third", "fourth"} { // changes land, and are not taken for the end of it
		before := n.isolated(pods, 0)
		n.policy(policyFor(name, metav1.LabelSelector{}))
		n.await("the change is in the kernel", func() bool { return n.isolated(pods, 0) != before })
		for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); time.Sleep(time.Millisecond) {
			if n.agent.Ready()["programming"](nil) == nil {
				t.Fatalf("after the %s policy all is well, and there is still nowhere to pin", name)
			}
		}
	}
	check(t, unix.Unmount(n.bpffs, unix.MNT_DETACH))
	mounted = false
	n.await("the agent is ready", n.ready)
}

// Bridges come with the pods, after the agent, and sysctls are anybody's.
func TestTrafficThatCannotBeSeenIsNoticedWhileTheAgentRuns(t *testing.T) {
	const key = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	n := start(t, dataplane.Sizes{})
	if got := n.metric("kidoban_agent_warnings"); got != 0 {
		t.Errorf("%v warnings of a good node", got)
	}
	check(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_ra", []byte("0"), 0o644)) // another warning
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "pod0"}, PeerName: "pod0-peer"}
	for _, l := range []netlink.Link{bridge, veth} {
		check(t, netlink.LinkAdd(l))
		t.Cleanup(func() { check(t, netlink.LinkDel(l)) })
	}
	check(t, netlink.LinkSetMaster(veth, bridge))
	check(t, os.WriteFile(key, []byte("0"), 0o644))
	t.Cleanup(func() { check(t, os.WriteFile(key, []byte("1"), 0o644)) })
	n.await("a warning", func() bool { return n.metric("kidoban_agent_warnings") == 1 })
	check(t, os.WriteFile(key, []byte("1"), 0o644))
	n.await("that it is over", func() bool { return n.metric("kidoban_agent_warnings") == 0 })
}
