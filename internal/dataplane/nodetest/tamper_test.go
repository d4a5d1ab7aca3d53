package nodetest

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// Where somebody detached the program, the agent attaches it again, says so, and cuts what was opened meanwhile.
func TestTheProgramIsDetached(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	n.swept(func() { n.tell(policyFor("closed", metav1.LabelSelector{})) })
	paths, err := filepath.Glob(filepath.Join(n.bpffs, "kidoban", "*", "link_ipv4"))
	check(t, err)
	l, err := link.LoadPinnedLink(paths[0], nil)
	check(t, err)
	defer func() { _ = l.Close() }()
	liveFlows(t, 1, 3)
	check(t, l.Detach())
	n.await("it is counted", func() bool { return n.metric("kidoban_agent_drift_entries_total") == 1 })
	n.await("what was opened meanwhile is cut", func() bool {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		check(t, err)
		return len(flows) == 0
	})
	n.await("the agent is ready", n.ready)
}

// The maps are repaired also where there is nowhere to pin them, and all is pinned where there is again.
func TestTheBPFFileSystemIsUnmounted(t *testing.T) {
	n := start(t, dataplane.Sizes{})
	n.pod(0)
	n.tell(policyFor("closed", metav1.LabelSelector{}))
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
	key, open := address(0).As16(), [4]uint32{}
	check(t, pods.Put(&key, &open))
	n.await("the map is repaired", func() bool { return n.isolated(pods, 0) != 0 })
	check(t, unix.Unmount(n.bpffs, unix.MNT_DETACH))
	mounted = false
	n.await("the agent is ready", n.ready)
}
