package directory

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var begin = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }

func newPod(name string, created time.Time, addresses ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(created), Labels: map[string]string{"app": name}}}
	p.Spec.NodeName = "n1"
	p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {ContainerPort: 9090}}}}
	for _, a := range addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func find(d *Directory, addr string, t time.Time) string {
	end, ok := d.Find(netip.MustParseAddr(addr), t)
	if ok == (end.Pod == "" && !end.IsNode) {
		panic("known, and without a name")
	}
	if end.IsNode {
		return end.Node
	}
	return end.Pod
}

func check(t *testing.T, d *Directory, addr string, when time.Time, want string) {
	t.Helper()
	if got := find(d, addr, when); got != want {
		t.Errorf("%s at %s: %q, want %q", addr, when, got, want)
	}
}

// An address that another pod has got is named by the time of the record.
func TestReusedAddress(t *testing.T) {
	const addr = "10.50.2.40"
	d := New()
	d.SetPod(newPod("before", at(0), addr), at(1))
	d.DeletePod("before", at(100))
	d.SetPod(newPod("after", at(90)), at(90))
	d.SetPod(newPod("after", at(90), addr), at(108))
	for seconds, want := range map[int]string{-1: "", 0: "before", 99: "before", 100: "after", 110: "after", 5000: "after"} {
		check(t, d, addr, at(seconds), want)
	}
	d.Forget(at(100).Add(kept + time.Minute))
	check(t, d, addr, at(50), "")
	check(t, d, addr, at(110), "after")
}

// A Job's pod keeps its address in its status after its end.
func TestFinishedPod(t *testing.T) {
	d := New()
	p := newPod("report", at(0), "10.50.2.40")
	p.Status.Phase = corev1.PodSucceeded
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(at(60))}}}}
	d.SetPod(p, at(4000))
	check(t, d, "10.50.2.40", at(30), "report")
	check(t, d, "10.50.2.40", at(60+61), "")
	d.SetPod(newPod("newcomer", at(3600), "10.50.2.40"), at(4000))
	check(t, d, "10.50.2.40", at(30), "report")
	check(t, d, "10.50.2.40", at(3700), "newcomer")
}

// The end of the pod before may be seen later than the next one's beginning.
func TestLateDeletion(t *testing.T) {
	d := New()
	d.SetPod(newPod("before", at(0), "10.50.2.40"), at(1))
	d.SetPod(newPod("after", at(100), "10.50.2.40"), at(101))
	d.DeletePod("before", at(130))
	check(t, d, "10.50.2.40", at(99), "before")
	check(t, d, "10.50.2.40", at(101), "after")
}

// Labels are those of the time.
func TestLabels(t *testing.T) {
	d := New()
	d.SetNamespace("shop", map[string]string{"team": "a"}, at(0))
	d.SetPod(newPod("web", at(0), "10.50.1.20", "2001:db8::20"), at(0))
	p := newPod("web", at(0), "10.50.1.20", "2001:db8::20")
	p.Labels = map[string]string{"app": "web", "track": "canary"}
	d.SetPod(p, at(100))
	d.SetNamespace("shop", map[string]string{"team": "b"}, at(200))
	for _, tc := range []struct {
		seconds     int
		track, team string
	}{{50, "", "a"}, {150, "canary", "a"}, {250, "canary", "b"}} {
		for _, addr := range []string{"10.50.1.20", "2001:db8::20"} {
			end, _ := d.Find(netip.MustParseAddr(addr), at(tc.seconds))
			if end.Labels["track"] != tc.track || end.NamespaceLabels["team"] != tc.team || end.Address.String() != addr {
				t.Errorf("%d: %+v", tc.seconds, end)
			}
			if again, _ := d.Find(netip.MustParseAddr(addr), at(tc.seconds)); again != end {
				t.Error("ends are not shared")
			}
		}
	}
	if end := d.Pod("web", "n1", netip.MustParseAddr("10.50.1.20"), at(250)); len(end.NamedPorts) != 1 || end.NamedPorts[0].Number != 8080 || end.NamedPorts[0].Protocol != "TCP" || end.Workload.Name != "web" {
		t.Errorf("%+v", end)
	}
	if end := d.Pod("web", "n2", netip.MustParseAddr("10.50.1.20"), at(250)); end != nil {
		t.Errorf("a pod of another node: %+v", end)
	}
}

// An agent's word for an address counts for the pods of its node.
func TestLearn(t *testing.T) {
	d := New()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "10.0.0.11"}, {Type: corev1.NodeHostName, Address: "n1"}}
	d.SetNode(n)
	d.SetPod(newPod("web", at(0)), at(0))
	changed := d.Changed()
	d.Learn(netip.MustParseAddr("10.50.1.20"), "web", "n2", at(1))
	d.Learn(netip.MustParseAddr("10.50.1.20"), "other", "n1", at(1))
	d.Learn(netip.MustParseAddr("10.0.0.11"), "web", "n1", at(1))
	check(t, d, "10.50.1.20", at(2), "")
	check(t, d, "10.0.0.11", at(2), "n1")
	d.Learn(netip.MustParseAddr("10.50.1.20"), "web", "n1", at(1))
	check(t, d, "10.50.1.20", at(2), "web")
	check(t, d, "10.50.1.20", at(1).Add(-10*time.Millisecond), "web") // by the other end's node
	select {
	case <-changed:
	default:
		t.Error("the change is not noted")
	}
	d.DeleteNode("n1")
	check(t, d, "10.0.0.11", at(2), "")
}

func TestServices(t *testing.T) {
	d := New()
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-dns", CreationTimestamp: metav1.NewTime(at(0))}}
	s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.100.0.10", []string{"10.100.0.10", "fd00::10"}
	d.SetService(s, at(1))
	addr := netip.MustParseAddr("10.100.0.10")
	d.DeleteService("kube-system", "kube-dns", at(100))
	s.Name, s.CreationTimestamp = "other", metav1.NewTime(at(200))
	d.SetService(s, at(200))
	for seconds, want := range map[int]string{-1: "", 50: "kube-system/kube-dns", 150: "", 201: "kube-system/other"} {
		if got := d.Service(addr, at(seconds)); got != want {
			t.Errorf("%d: %q, want %q", seconds, got, want)
		}
	}
}
