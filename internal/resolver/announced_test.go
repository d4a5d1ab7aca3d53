package resolver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// earlyCluster has two policies: pods labelled app=a, and pods labelled app=b, are peers in namespace shop.
type earlyCluster struct {
	*Resolver
	t *testing.T
}

func newEarlyCluster(t *testing.T, started bool) earlyCluster {
	r := New(Options{SharedNamespace: "kidoban-system", MaxAddresses: 10})
	for _, app := range []string{"a", "b"} {
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: app, UID: types.UID(app)}}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}}}}
		r.SetPolicy(np)
	}
	if started {
		r.Start(Existing{})
	}
	return earlyCluster{r, t}
}

func earlyPod(name, app, node string, addresses ...string) Pod {
	p := Pod{Key: types.NamespacedName{Namespace: "shop", Name: name}, UID: types.UID("uid-" + name), Node: node, Labels: map[string]string{"app": app}, Phase: corev1.PodPending}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

var epoch = time.Unix(1_800_000_000, 0)

func announcementOf(p Pod, addresses ...string) Announcement {
	a := Announcement{Pod: p.Key, UID: p.UID, Node: p.Node, Until: epoch.Add(30 * time.Second)}
	for _, text := range addresses {
		a.Addresses = append(a.Addresses, netip.MustParseAddr(text))
	}
	return a
}

// members returns the addresses of the groups of both policies.
func (c earlyCluster) members() string {
	var out []string
	for _, app := range []string{"a", "b"} {
		name, _ := c.EndpointName(types.NamespacedName{Namespace: "shop", Name: app})
		e, _ := c.Endpoint(name)
		out = append(out, app+": "+strings.Join(c.addressesIn(e.Groups[0]), " "))
	}
	return strings.Join(out, "; ")
}

func (c earlyCluster) addressesIn(key policy.GroupKey) []string {
	var out []string
	for _, ns := range c.namespaces {
		for _, p := range ns.pods {
			p.eachGroup(func(g *group) {
				for _, a := range g.of(p) {
					if g.key == key {
						out = append(out, a.ip().String())
					}
				}
			})
		}
	}
	slices.Sort(out)
	return out
}

func (c earlyCluster) expect(when, want string) {
	c.t.Helper()
	if got := c.members(); got != want {
		c.t.Errorf("%s: %s, want %s", when, got, want)
	}
}

func (c earlyCluster) announce(a Announcement, want Verdict) []policy.GroupKey {
	c.t.Helper()
	v, left, changes := c.Announce(a)
	if v != want {
		c.t.Errorf("the announcement of %s is judged %d, want %d", a.Pod.Name, v, want)
	}
	if v != Accepted && len(changes.Slices) > 0 {
		c.t.Errorf("a refused announcement changes %v", changes.Slices)
	}
	return left
}

// An announced address is the pod's until its status has addresses; then the status decides.
func TestAnnouncedAddressUntilTheStatusHasIt(t *testing.T) {
	c := newEarlyCluster(t, true)
	p := earlyPod("web", "a", "n1")
	c.SetPod(p)
	c.announce(announcementOf(p, "10.0.0.1", "2001:db8::1"), Accepted)
	c.expect("announced", "a: 10.0.0.1 2001:db8::1; b: ")
	if groups := c.GroupsOf(p.Key); len(groups) != 1 {
		t.Errorf("its groups are %v", groups)
	}
	p.Labels = map[string]string{"app": "b"}
	c.SetPod(p)
	c.expect("another label, before a status", "a: ; b: 10.0.0.1 2001:db8::1")
	p.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	c.SetPod(p)
	c.expect("the status has one of them", "a: ; b: 10.0.0.1")
	if next, changes := c.Expire(epoch.Add(time.Hour)); !next.IsZero() || len(changes.Slices) > 0 {
		t.Errorf("later: %v, %v", next, changes)
	}
	c.announce(announcementOf(p, "10.0.0.1", "2001:db8::1"), Accepted) // again, after a reconnect
	c.expect("announced once more", "a: ; b: 10.0.0.1")
}

func TestAnnouncementEnds(t *testing.T) {
	for name, end := range map[string]func(c earlyCluster, p Pod){
		"withdrawn": func(c earlyCluster, p Pod) { c.Withdraw("n1", p.UID) },
		"expired":   func(c earlyCluster, _ Pod) { c.Expire(epoch.Add(30 * time.Second)) },
		"deleted":   func(c earlyCluster, p Pod) { c.DeletePod(p.Key) },
		"failed":    func(c earlyCluster, p Pod) { p.Phase = corev1.PodFailed; c.SetPod(p) },
		"replaced":  func(c earlyCluster, p Pod) { p.UID = "other"; c.SetPod(p) },
	} {
		c := newEarlyCluster(t, true)
		former, p := earlyPod("former", "b", "n1", "10.0.0.1"), earlyPod("web", "a", "n1")
		c.SetPod(former)
		c.SetPod(p)
		if left := c.announce(announcementOf(p, "10.0.0.1"), Accepted); len(left) != 1 {
			t.Errorf("%s: it left %v", name, left)
		}
		c.expect("announced", "a: 10.0.0.1; b: ")
		if c.Withdraw("n2", p.UID); c.members() != "a: 10.0.0.1; b: " {
			t.Errorf("%s: another node withdraws it", name)
		}
		if next, _ := c.Expire(epoch.Add(29 * time.Second)); !next.Equal(epoch.Add(30 * time.Second)) {
			t.Errorf("%s: it ends at %s", name, next)
		}
		end(c, p)
		c.expect(name, "a: ; b: 10.0.0.1")
		if len(c.announced.byUID)+len(c.announced.byAddress)+len(c.announced.lost) > 0 {
			t.Errorf("%s: left behind: %+v", name, c.announced)
		}
	}
}

// When the status of the new pod has the address, the former owner does not get it back.
func TestFormerOwnerAfterTheStatus(t *testing.T) {
	c := newEarlyCluster(t, true)
	former, p := earlyPod("former", "b", "n1", "10.0.0.1"), earlyPod("web", "a", "n1")
	c.SetPod(former)
	c.SetPod(p)
	c.announce(announcementOf(p, "10.0.0.1"), Accepted)
	p.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	c.SetPod(p)
	c.expect("both have it in their status", "a: 10.0.0.1; b: ")
	c.DeletePod(former.Key)
	c.expect("the former owner is deleted", "a: 10.0.0.1; b: ")
	if len(c.announced.lost) > 0 {
		t.Errorf("lost: %v", c.announced.lost)
	}
}

func TestAnnouncementIsRefused(t *testing.T) {
	c := newEarlyCluster(t, true)
	p := earlyPod("web", "a", "n1")
	c.SetPod(p)
	c.SetPod(earlyPod("elsewhere", "b", "n2", "10.0.0.2"))
	gone := earlyPod("gone", "b", "n2", "10.0.0.3")
	gone.Phase = corev1.PodSucceeded
	c.SetPod(gone)
	host := earlyPod("host", "a", "n1")
	host.HostNetwork = true
	c.SetPod(host)
	unbound := earlyPod("unbound", "a", "")
	c.SetPod(unbound)
	ended := earlyPod("ended", "a", "n1")
	ended.Phase = corev1.PodFailed
	c.SetPod(ended)

	other := announcementOf(p, "10.0.0.9")
	other.Node = "n2"
	c.announce(other, OtherNode)
	uid := announcementOf(p, "10.0.0.9")
	uid.UID = "other"
	c.announce(uid, UnknownPod)
	c.announce(announcementOf(earlyPod("none", "a", "n1"), "10.0.0.9"), UnknownPod)
	c.announce(announcementOf(unbound, "10.0.0.9"), UnknownPod)
	c.announce(announcementOf(host, "10.0.0.9"), HostNetwork)
	c.announce(announcementOf(ended, "10.0.0.9"), Ended)
	c.announce(announcementOf(p, "10.0.0.9", "10.0.0.2"), AddressInUse)
	c.expect("after all refusals", "a: ; b: 10.0.0.2")
	c.announce(announcementOf(p, "10.0.0.3"), Accepted)
	c.expect("the other pod has ended", "a: 10.0.0.3; b: 10.0.0.2")
	second := earlyPod("second", "b", "n2")
	c.SetPod(second)
	c.announce(announcementOf(second, "10.0.0.3"), AddressInUse)
}

// The newest sandbox of a node owns an address.
func TestAnnouncedTwiceOnANode(t *testing.T) {
	c := newEarlyCluster(t, true)
	p, q := earlyPod("web", "a", "n1"), earlyPod("db", "b", "n1")
	c.SetPod(p)
	c.SetPod(q)
	c.announce(announcementOf(p, "10.0.0.1"), Accepted)
	c.announce(announcementOf(q, "10.0.0.1"), Accepted)
	c.expect("the second one has it", "a: ; b: 10.0.0.1")
	c.announce(announcementOf(q, "10.0.0.2"), Accepted)
	c.expect("a new sandbox of the pod", "a: ; b: 10.0.0.2")
}

// A node knows a static pod by another UID than its mirror's.
func TestAnnouncedStaticPod(t *testing.T) {
	c := newEarlyCluster(t, true)
	object := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "web", UID: "mirror", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{corev1.MirrorPodAnnotationKey: "static"},
	}}
	object.Spec.NodeName = "n1"
	p := PodOf(object)
	c.SetPod(p)
	static := announcementOf(p, "10.0.0.1")
	static.UID = "static"
	c.announce(static, Accepted)
	c.expect("announced", "a: 10.0.0.1; b: ")
	c.Withdraw("n1", "static")
	c.expect("withdrawn", "a: ; b: ")
	c.announce(static, Accepted)
	c.announce(static, Accepted)
	p.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	c.SetPod(p)
	c.expect("the status has it", "a: 10.0.0.1; b: ")
	if n := len(c.announced.byUID) + len(c.announced.mirrors); n > 0 {
		t.Errorf("left behind: %+v", c.announced)
	}
	other := static
	other.UID = "other"
	c.announce(other, UnknownPod)
	// A pod without the annotation has no second UID.
	q := earlyPod("db", "b", "n1")
	q.UID = "uid-db"
	c.SetPod(q)
	none := announcementOf(q, "10.0.0.2")
	none.UID = ""
	c.announce(none, UnknownPod)
}

// A follower stores announcements and uses them when it starts.
func TestAnnouncedBeforeStart(t *testing.T) {
	c := newEarlyCluster(t, false)
	former, p := earlyPod("former", "b", "n1", "10.0.0.1"), earlyPod("web", "a", "n1")
	c.SetPod(former)
	c.SetPod(p)
	c.announce(announcementOf(p, "10.0.0.1"), Accepted)
	c.Start(Existing{})
	c.expect("started", "a: 10.0.0.1; b: ")
}

// After any history, when all announcements have ended, the statuses decide, as for a resolver that saw none.
func TestAnnouncementsLeaveNothingBehind(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		c := newEarlyCluster(t, rng.IntN(2) == 0)
		pods := map[string]Pod{}
		for range 60 {
			name := fmt.Sprint("pod", rng.IntN(8))
			addr := fmt.Sprint("10.0.0.", 1+rng.IntN(4))
			p, ok := pods[name]
			switch {
			case !ok:
				p = earlyPod(name, string(rune('a'+rng.IntN(2))), fmt.Sprint("n", rng.IntN(2)))
				p.UID = types.UID(fmt.Sprint(name, rng.Uint32()))
				pods[name] = p
				c.SetPod(p)
			case rng.IntN(5) == 0:
				delete(pods, name)
				c.DeletePod(p.Key)
			case rng.IntN(3) == 0:
				p.Addresses = []netip.Addr{netip.MustParseAddr(addr)}
				pods[name] = p
				c.SetPod(p)
			case rng.IntN(6) == 0:
				c.Withdraw(p.Node, p.UID)
			case rng.IntN(12) == 0 && !c.Started():
				c.Start(Existing{})
			default:
				c.Announce(announcementOf(p, addr))
			}
		}
		if !c.Started() {
			c.Start(Existing{})
		}
		c.Expire(epoch.Add(time.Hour))
		want := newEarlyCluster(t, true)
		shared := map[netip.Addr]int{}
		for _, p := range pods {
			want.SetPod(p)
			for _, a := range p.Addresses {
				shared[a]++
			}
		}
		for _, p := range pods {
			if len(p.Addresses) > 0 && shared[p.Addresses[0]] > 1 {
				continue // the newest owner has it
			}
			if got, want := c.GroupsOf(p.Key), want.GroupsOf(p.Key); !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s is in %v, want %v", seed, p.Key.Name, got, want)
			}
		}
		if n := len(c.announced.byUID) + len(c.announced.byAddress); n > 0 {
			t.Fatalf("seed %d: %d announcements are left", seed, n)
		}
		for a := range c.announced.lost {
			if len(c.owners(a)) < 2 {
				t.Fatalf("seed %d: %s is lost and has %d owners", seed, a.ip(), len(c.owners(a)))
			}
		}
	}
}
