package dataplane_test

import (
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	core "github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// objects are a node's state as the agent has it, made from objects of the API, and the node's links and routes.
type objects struct {
	*node
	state *core.Node
}

func withObjects(n *node, opts core.Options) *objects {
	opts.SharedNamespace = "kidoban-system"
	return &objects{node: n, state: core.New(opts)}
}

// apply brings the kernel up to date.
func (o *objects) apply() {
	o.t.Helper()
	o.Do(func() error {
		interfaces, err := inspect.ReadInterfaces()
		if err != nil {
			return err
		}
		o.state.NamespaceSynced(time.Now(), "shop")
		o.state.SetInterfaces(time.Now(), interfaces)
		changes, _ := o.state.Commit()
		return o.d.Apply(changes)
	})
}

// pod is what the API server has of a pod. Its status shows eth0's addresses.
func (o *objects) pod(name string, p *netnstest.Pod) {
	o.t.Helper()
	o.state.SetPod(time.Now(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: map[string]string{"app": name}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: p.V4.String()}, {IP: p.V6.String()}}},
	})
	o.apply()
}

// isolate sets the one policy of the pod with this name.
func (o *objects) isolate(name string, d v1alpha1.PolicyType, rules ...v1alpha1.Rule) {
	o.t.Helper()
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name}
	pe.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{d}
	if d == v1alpha1.PolicyTypeIngress {
		pe.Spec.Ingress = rules
	} else {
		pe.Spec.Egress = rules
	}
	check(o.t, o.state.SetPolicyEndpoint(time.Now(), policy.ReadEndpoint(pe, "kidoban-system")))
	o.apply()
}

func allow(port int32, addrs ...netip.Addr) v1alpha1.Rule {
	r := v1alpha1.Rule{Action: v1alpha1.ActionAllow, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: port}}}
	for _, a := range addrs {
		r.Peers = append(r.Peers, v1alpha1.Peer{CIDR: v1alpha1.CIDR(single(a))})
	}
	return r
}

// secondVeth is what an extra interface of a pod is like.
type secondVeth struct {
	name          string
	addr, gateway netip.Addr
	snat          string
}

// The interfaces that no API shows, as the Amazon VPC CNI makes them for IPv4 egress of an IPv6 pod and the reverse, and as it makes them for
// pods with several interfaces of the VPC, which are those of the plugin ptp under Multus, too.
var secondVeths = map[string]secondVeth{
	"IPv4 egress": {"v4if0", netip.MustParseAddr("169.254.172.5"), netip.MustParseAddr("169.254.172.1"),
		`table ip egress { chain out { type nat hook postrouting priority 100; ip saddr 169.254.172.5 snat to 10.9.255.1; }; }`},
	"IPv6 egress": {"v6if0", netip.MustParseAddr("fd00::ac:5"), netip.MustParseAddr("fd00::ac:1"),
		`table ip6 egress { chain out { type nat hook postrouting priority 100; ip6 saddr fd00::ac:5 snat to fd09:ff::1; }; }`},
	"IPv4 of the VPC": {"eth1", netip.MustParseAddr("10.9.7.1"), netip.MustParseAddr("10.9.7.254"), ""},
	"IPv6 of the VPC": {"eth1", netip.MustParseAddr("fd09:7::1"), netip.MustParseAddr("fd09:7::fe"), ""},
}

// A pod's policies hold for what it sends and gets by each of its interfaces, in each mode, and no other source address passes there.
func TestEachInterfaceOfAPod(t *testing.T) {
	for name, second := range secondVeths {
		modes := []core.Mode{core.Standard}
		if name == "IPv4 egress" {
			modes = []core.Mode{core.Standard, core.Guarded, core.Strict, "audit"}
		}
		for _, mode := range modes {
			t.Run(name+", "+string(mode), func(t *testing.T) { testSecondVeth(t, second, mode) })
		}
	}
}

func testSecondVeth(t *testing.T, second secondVeth, mode core.Mode) {
	isAudited := mode == "audit"
	opts := core.Options{Mode: mode, Audit: isAudited}
	guard := dataplane.GuardOn
	if isAudited {
		opts.Mode, guard = core.Strict, dataplane.GuardAudit
	} else if mode == core.Standard {
		guard = dataplane.GuardOff
	}
	n, _, far := newVPCNodeWith(t, dataplane.Options{Guard: guard})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	lo, err := n.Link.LinkByName("lo")
	check(t, err)
	n.AddAddress(lo, "fd09:ff::1/128")
	o := withObjects(n, opts)
	v6 := second.addr.Is6()
	there := far[btoi(v6)]
	web, db := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	web.Echo("tcp", 80)
	db.Echo("tcp", 80)
	if second.snat != "" {
		n.nft(second.snat)
	}
	link := n.AddInterface(web, second.name, second.addr, second.gateway, there, db.Addr(v6))
	n.Sysctl("ipv4/conf/"+link.Attrs().Name+"/rp_filter", "0")
	o.pod("web", web)
	o.pod("db", db)
	passes := func(allowed bool, from *netnstest.Pod, to netip.Addr, port uint16) {
		t.Helper()
		if allowed || isAudited {
			reaches(t, from, "tcp", to, port)
		} else {
			isKept(t, from, "tcp", to, port)
		}
	}
	open := mode != core.Strict
	passes(open, web, there, 80)
	passes(open, web, db.Addr(v6), 80)
	passes(open, db, second.addr, 80)

	o.isolate("web", v1alpha1.PolicyTypeEgress)
	passes(false, web, there, 80)
	passes(false, web, db.Addr(v6), 80)
	o.isolate("web", v1alpha1.PolicyTypeEgress, allow(80, there, db.Addr(v6)))
	passes(true, web, there, 80)
	passes(false, web, there, 81)

	// The destination sees the address that no API shows: it is no member of a group that has the pod's.
	o.isolate("db", v1alpha1.PolicyTypeIngress, allow(80, web.Addr(v6)))
	passes(false, web, db.Addr(v6), 80)
	o.isolate("db", v1alpha1.PolicyTypeIngress, allow(80, second.addr))
	passes(true, web, db.Addr(v6), 80)

	// No other address passes by this interface, and each of the pod's own does.
	in := inbox(t, db, 53)
	o.isolate("db", v1alpha1.PolicyTypeIngress)
	check(t, o.state.SetPolicyEndpoint(time.Now(), policy.ReadEndpoint(unrestricted("db"), "kidoban-system")))
	check(t, o.state.SetPolicyEndpoint(time.Now(), policy.ReadEndpoint(unrestricted("web"), "kidoban-system")))
	o.apply()
	before := spoofed(t, n.d)
	for _, source := range []netip.Addr{netip.MustParseAddr("10.9.0.9"), netip.MustParseAddr("fd09::9")} {
		if source.Is6() == v6 {
			sendAs(t, web, source, netip.AddrPortFrom(db.Addr(v6), 53))
			if got := arrives(t, in, source, netnstest.Silence); got != isAudited {
				t.Errorf("a packet from %v passed: %v", source, got)
			}
		}
	}
	if got := spoofed(t, n.d) - before; got != 1 {
		t.Errorf("%d packets were spoofed, want 1", got)
	}
	sendAs(t, web, web.Addr(v6), netip.AddrPortFrom(db.Addr(v6), 53))
	if !arrives(t, in, web.Addr(v6), netnstest.Patience) {
		t.Error("a packet from the pod's first address did not pass")
	}

	// The interface goes and comes back while the pod runs.
	o.isolate("web", v1alpha1.PolicyTypeEgress)
	check(t, n.Link.LinkDel(link))
	o.apply()
	n.AddInterface(web, second.name, second.addr, second.gateway, there)
	o.apply()
	passes(false, web, there, 80)
}

// unrestricted is a policy that allows everything in both directions.
func unrestricted(name string) *v1alpha1.PolicyEndpoint {
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name}
	pe.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress, v1alpha1.PolicyTypeEgress}
	pe.Spec.Ingress, pe.Spec.Egress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}}, []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}}
	return pe
}

// spoofed is how many packets were denied as spoofed, or would have been.
func spoofed(t testing.TB, d *dataplane.Dataplane) uint64 {
	t.Helper()
	counters, err := d.Counters()
	check(t, err)
	n := uint64(0)
	for _, c := range counters.Judged {
		if c.Reason == events.ReasonSpoofed {
			n += c.Packets
		}
	}
	return n
}
