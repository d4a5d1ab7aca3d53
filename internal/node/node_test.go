package node

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

const shared = "kidoban-system"

// start is when stories begin.
var start = time.Unix(1_000_000_000, 0)

// A story is a Node and the decisions of its tables, step by step.
type story struct {
	*testing.T
	*Node
}

// SetPolicyEndpoint takes in an object as a watch reports it.
func (s story) SetPolicyEndpoint(now time.Time, pe *v1alpha1.PolicyEndpoint) error {
	return s.Node.SetPolicyEndpoint(now, policy.ReadEndpoint(pe, shared))
}

// removeDeleted removes the policies that were deleted long enough before.
func (s story) removeDeleted(now time.Time) {
	for key := range s.Deleted(now) {
		s.RemoveDeleted(now, key)
	}
}

func newStory(t *testing.T) story {
	s := story{t, New(Options{SharedNamespace: shared})}
	s.namespaces["shop"] = newNamespace()
	s.NamespaceSynced(start, "shop")
	return s
}

func (s story) pod(name, ip string, change ...func(*corev1.Pod)) {
	s.SetPod(start, podObject(name, ip, change...))
}

func podObject(name, ip string, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + ip), Labels: map[string]string{"app": name}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: ip}}},
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

// endpointGone deletes a PolicyEndpoint of a live namespace, and waits until its last version is removed.
func (s story) endpointGone(name string) {
	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: name})
	s.removeDeleted(start.Add(DeletionPatience))
}

func (s story) endpoint(name string, selector map[string]string, rules ...v1alpha1.Rule) {
	s.Helper()
	for i := range rules {
		rules[i].Action = v1alpha1.ActionAllow
	}
	err := s.SetPolicyEndpoint(start, &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: name},
			PodSelector: metav1.LabelSelector{MatchLabels: selector},
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
			Ingress:     rules,
		},
	})
	if err != nil {
		s.Fatal(err)
	}
}

// slice takes in a slice of one group, with a number in place of its name. The group's slice 0 lists its slices: those with numbers below count.
func (s story) slice(namespace, group string, number, count int32, addresses ...v1alpha1.CIDR) {
	s.Helper()
	var list []string
	for i := range count {
		list = append(list, fmt.Sprint(group, "-", i))
	}
	pes := oneGroup(namespace, fmt.Sprint(group, "-", number), group, list, addresses...)
	if err := s.SetSlice(start, policy.ReadSlice(pes)); err != nil {
		s.Fatal(err)
	}
}

// oneGroup is a slice with addresses of one group and a list of the group's slices.
func oneGroup(namespace, name, group string, list []string, addresses ...v1alpha1.CIDR) *v1alpha1.PolicyEndpointSlice {
	pes := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	pes.Spec.Groups = []v1alpha1.GroupPart{{Name: group, Slices: list}}
	if pes.Spec.Addresses = addresses; len(addresses) > 0 {
		pes.Spec.Classes = []v1alpha1.AddressClass{{Groups: []int32{0}, Count: int32(len(addresses))}}
	}
	return pes
}

func (s story) sliceGone(namespace, group string, number int) {
	s.DeleteSlice(start, types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(group, "-", number)})
}

func (s story) decide(from, to string, port uint16) policy.Action {
	s.Commit()
	f := policy.Flow{Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: policy.TCP, Port: port}
	v, _ := s.Maps().Lookup(policy.Ingress, f)
	return v.Action
}

func (s story) allowed(from, to string, port uint16) {
	s.Helper()
	if s.decide(from, to, port) != policy.Allow {
		s.Errorf("%s → %s:%d is denied", from, to, port)
	}
}

func (s story) denied(from, to string, port uint16) {
	s.Helper()
	if s.decide(from, to, port) != policy.Deny {
		s.Errorf("%s → %s:%d is allowed", from, to, port)
	}
}

func fromGroup(name string) v1alpha1.Rule {
	return fromGroupReference(v1alpha1.GroupReference{Name: name})
}

func fromSharedGroup(name string) v1alpha1.Rule {
	return fromGroupReference(v1alpha1.GroupReference{Name: name, Shared: true})
}

func fromGroupReference(ref v1alpha1.GroupReference) v1alpha1.Rule {
	return v1alpha1.Rule{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{Group: &ref}}}
}

var everyPod map[string]string

func TestAPolicyIsInForceWhenAllItsGroupsAreComplete(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.allowed("10.0.0.9", "10.0.0.1", 80) // nothing is known of the group
	s.slice("shop", "g", 0, 2, "10.0.0.2/32")
	s.allowed("10.0.0.9", "10.0.0.1", 80) // one slice of two
	s.slice("shop", "g", 1, 0, "10.0.0.3/32")
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
}

func TestAnOldVersionJudgesUntilTheNewOneCan(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "old", 0, 1, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("old"))
	s.endpoint("allow", everyPod, fromGroup("new"))
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.sliceGone("shop", "old", 0) // no object refers to it any more
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.slice("shop", "new", 0, 1, "10.0.0.3/32")
	s.denied("10.0.0.2", "10.0.0.1", 80)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	if len(s.groups) != 1 {
		t.Errorf("groups %v: the old one is not used", s.groups)
	}
}

func TestAGroupKeepsItsMembersWhileASliceIsMissing(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 2, "10.0.0.2/32")
	s.slice("shop", "g", 1, 0, "10.0.0.3/32")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.sliceGone("shop", "g", 1) // deleted by hand
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "g", 1, 0, "10.0.0.4/32")
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.allowed("10.0.0.4", "10.0.0.1", 80)
}

// While a watch is down, a slice may be deleted and another one created under its name.
func TestASliceThatIsReplacedUnderItsNameLeavesItsGroup(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.slice("shop", "h", 0, 1, "10.0.0.3/32")
	s.endpoint("allow", everyPod, fromGroup("g"), fromGroup("h"))
	replaced := func(group string, addresses ...v1alpha1.CIDR) error {
		return s.SetSlice(start, policy.ReadSlice(oneGroup("shop", "g-0", group, []string{"g-0"}, addresses...)))
	}
	if err := replaced("other", "ten"); err == nil {
		t.Fatal("an unreadable slice is no error")
	}
	s.allowed("10.0.0.2", "10.0.0.1", 80) // the previous version stays in force
	if err := replaced("other", "10.0.0.9/32"); err != nil {
		t.Fatal(err)
	}
	s.allowed("10.0.0.2", "10.0.0.1", 80) // its group is incomplete and keeps its members
	if err := s.SetSlice(start, policy.ReadSlice(oneGroup("shop", "g-again", "g", []string{"g-again"}, "10.0.0.4/32"))); err != nil {
		t.Fatal(err)
	}
	s.denied("10.0.0.2", "10.0.0.1", 80)
	s.allowed("10.0.0.4", "10.0.0.1", 80)
	s.allowed("10.0.0.3", "10.0.0.1", 80)

	if err := replaced("other", "ten"); err == nil {
		t.Fatal("an unreadable slice is no error")
	}
	s.sliceGone("shop", "g", 0) // its last version was unreadable
	if g := s.groups[policy.GroupKey{Namespace: "shop", Name: "other"}]; g != nil {
		t.Errorf("its group still has %d slices", len(g.parts))
	}
}

func TestAGroupGrowsAndShrinks(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.slice("shop", "g", 1, 0, "10.0.0.3/32")
	s.allowed("10.0.0.3", "10.0.0.1", 80) // before it is listed
	s.slice("shop", "g", 0, 2, "10.0.0.2/32")
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "g", 0, 2, "10.0.0.2/32", "10.0.0.3/32") // the address moves
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "g", 0, 1, "10.0.0.2/32", "10.0.0.3/32")
	s.sliceGone("shop", "g", 1)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
}

func TestAGroupIsOfTheNamespaceOrShared(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.pod("db", "10.0.0.5")
	s.slice(shared, "g", 0, 1, "10.0.0.2/32")
	s.slice("shop", "g", 0, 1, "10.0.0.3/32")
	s.slice("other", "g", 0, 1, "10.0.0.9/32")
	s.endpoint("a", map[string]string{"app": "web"}, fromSharedGroup("g"))
	s.endpoint("b", map[string]string{"app": "db"}, fromGroup("g"))
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.3", "10.0.0.5", 80)
	s.denied("10.0.0.2", "10.0.0.5", 80)
	for _, name := range []string{"a", "b"} {
		s.endpointGone(name)
	}
	if len(s.groupUsers)+len(s.waiting) > 0 {
		t.Errorf("users are left: %v, waiting: %v", s.groupUsers, s.waiting)
	}
}

func TestAPodFollowsItsLabels(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"tier": "closed"})
	s.pod("web", "10.0.0.1")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "10.0.0.1", func(p *corev1.Pod) { p.Labels["tier"] = "closed" })
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.pod("web", "10.0.0.1")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

func TestANamedPortIsEachPodsOwn(t *testing.T) {
	s := newStory(t)
	s.endpoint("http", everyPod, v1alpha1.Rule{Ports: []v1alpha1.Port{{Name: "http"}}})
	listen := func(port int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port}}}}
		}
	}
	s.pod("a", "10.0.0.1", listen(80))
	s.pod("b", "10.0.0.2", listen(8080))
	s.pod("c", "10.0.0.3")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.denied("10.0.0.9", "10.0.0.1", 8080)
	s.allowed("10.0.0.9", "10.0.0.2", 8080)
	s.denied("10.0.0.9", "10.0.0.2", 80)
	s.denied("10.0.0.9", "10.0.0.3", 80)
}

func TestTheYoungestOfTwoPodsHasTheAddress(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "new"})
	at := func(seconds int) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(int64(seconds), 0)) }
	}
	s.pod("new", "10.0.0.1", at(2))
	s.pod("old", "10.0.0.1", at(1)) // its deletion was not seen yet
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "old"})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.pod("old", "10.0.0.1", at(1))
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "new"})
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

// After a boot pods get each other's former addresses, and the API server tells of the former ones for some time.
func TestAPodWhoseSandboxHasTheAddressComesBeforeTheYoungest(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "old"})
	at := func(seconds int) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(int64(seconds), 0)) }
	}
	s.pod("young", "10.0.0.1", at(2))
	s.pod("old", "10.0.0.2", at(1))
	old := types.NamespacedName{Namespace: "shop", Name: "old"}
	s.RunSandbox(start, Sandbox{Pod: old, UID: "old10.0.0.2", Labels: nil, ID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.pod("old", "10.0.0.1", at(1), func(p *corev1.Pod) { p.UID = "old10.0.0.2" })
	s.denied("10.0.0.9", "10.0.0.1", 80)

	young := types.NamespacedName{Namespace: "shop", Name: "young"}
	s.StopSandbox(start, old, "1")
	s.RunSandbox(start, Sandbox{Pod: young, UID: "young10.0.0.1", Labels: nil, ID: "2", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.RunSandbox(start, Sandbox{Pod: young, UID: "young10.0.0.1", Labels: nil, ID: "3", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.3")}})
	s.RunSandbox(start, Sandbox{Pod: old, UID: "old10.0.0.2", Labels: nil, ID: "4", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.9", "10.0.0.3", 80)
}

func TestAPodThatEndedOrIsOnTheHostNetworkIsNobody(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", everyPod)
	s.pod("done", "10.0.0.1", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	s.pod("host", "10.0.0.2", func(p *corev1.Pod) { p.Spec.HostNetwork = true })
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.9", "10.0.0.2", 80)
	s.pod("web", "10.0.0.3")
	s.denied("10.0.0.9", "10.0.0.3", 80)
	s.pod("web", "10.0.0.3", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
	s.allowed("10.0.0.9", "10.0.0.3", 80)
}

func TestABrokenObjectLeavesWhatWasInForce(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("g"))
	broken := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "allow"}}
	broken.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
	broken.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/33"}}}}
	if err := s.SetPolicyEndpoint(start, broken); err == nil {
		t.Error("10.0.0.0/33 is taken for a CIDR")
	}
	if err := s.SetSlice(start, policy.ReadSlice(oneGroup("shop", "g-0", "g", []string{"g-0"}, "ten"))); err == nil {
		t.Error("ten is taken for a CIDR")
	}
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.denied("10.0.0.3", "10.0.0.1", 80)
}

func TestNothingStaysWhenAllIsGone(t *testing.T) {
	s := newStory(t)
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.sliceGone("shop", "g", 0)
	s.endpointGone("allow")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "web"})
	if n := len(s.pods) + len(s.owners) + len(s.policies) + len(s.byNamespace) + len(s.waiting) + len(s.groups) + len(s.groupUsers); n > 0 {
		t.Errorf("something is left: %+v", s.Node)
	}
	s.Commit()
	for range 4 {
		s.Collect()
	}
	tables := s.Maps()
	if n := len(tables.Pods) + len(tables.Addresses) + len(tables.Rows) + len(tables.Ports); n > 0 {
		t.Errorf("entries are left: %+v", tables)
	}
}

func TestAPodIsJudgedWhenItsNamespaceIsKnown(t *testing.T) {
	s := newStory(t)
	delete(s.namespaces, "shop")
	s.pod("web", "")
	if s.Synced() || s.namespaces["shop"] == nil {
		t.Error("the namespace of a pod without an address yet is not asked for")
	}
	s.pod("web", "10.0.0.1")
	s.decide("10.0.0.9", "10.0.0.1", 80)
	if n := len(s.Maps().Pods); n != 0 {
		t.Errorf("%d pods in the tables before the namespace's policies are known", n)
	}
	s.endpoint("deny", everyPod)
	s.NamespaceSynced(start, "shop")
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.NamespaceSynced(start, shared)
	if !s.Synced() {
		t.Error("all namespaces are known")
	}
}

func TestANamespaceIsForgottenWithAllThatWasKnownOfIt(t *testing.T) {
	s := newStory(t)
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.slice(shared, "g", 0, 1, "10.0.0.3/32")
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "web"})
	s.ForgetNamespace(start, "shop")
	if len(s.policies) > 0 || len(s.namespaces) != 1 || len(s.groups) != 1 || len(s.slices) != 1 {
		t.Errorf("policies %v, namespaces %v, groups %v: only the shared group is left", s.policies, s.namespaces, s.groups)
	}
}

func TestASandboxSpeaksBeforeThePodsStatus(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	web := types.NamespacedName{Namespace: "shop", Name: "web"}

	s.pod("web", "") // scheduled
	if s.decides(web) {
		t.Error("a pod without an address is said to be judged")
	}
	s.RunSandbox(start, Sandbox{Pod: web, UID: "web", Labels: nil, ID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	if !s.decides(web) {
		t.Error("the pod is not said to be judged")
	}
	s.pod("web", "") // a status from before the sandbox
	s.denied("10.0.0.9", "10.0.0.1", 80)

	s.RunSandbox(start, Sandbox{Pod: web, UID: "web", Labels: nil, ID: "2", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}) // made again after a crash
	s.StopSandbox(start, web, "1")
	s.denied("10.0.0.9", "10.0.0.2", 80)
	s.StopSandbox(start, web, "2")
	s.allowed("10.0.0.9", "10.0.0.2", 80)
}

func TestASandboxOfAPodThatNobodyToldOf(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	s.RunSandbox(start, Sandbox{Pod: web, UID: "uid", Labels: map[string]string{"app": "web"}, ID: "1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.forgetPod(web)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	if len(s.sandboxes) > 0 {
		t.Error("a deleted pod's sandbox is remembered")
	}
}

// The container runtime may know a pod sooner than the watch knows that its namesake has gone.
func TestASandboxOutlivesThePodBeforeIt(t *testing.T) {
	s := newStory(t)
	s.endpoint("deny", map[string]string{"app": "web"})
	old := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "old"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
	}
	s.SetPod(start, old)
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	s.RunSandbox(start, Sandbox{Pod: web, UID: "new", Labels: map[string]string{"app": "web"}, ID: "2", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}})
	failed := old.DeepCopy()
	failed.Status.Phase = corev1.PodFailed
	s.SetPod(start, old)
	s.SetPod(start, failed)
	s.DeletePod(start, failed)
	s.denied("10.0.0.9", "10.0.0.2", 80)
	fresh := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "new", Labels: map[string]string{"app": "web"}}}
	s.SetPod(start, fresh)
	s.DeletePod(start, old)
	s.denied("10.0.0.9", "10.0.0.2", 80)
	s.DeletePod(start, fresh)
	s.allowed("10.0.0.9", "10.0.0.2", 80)
	if len(s.pods)+len(s.sandboxes) > 0 {
		t.Errorf("left are pods %v, sandboxes %v", s.pods, s.sandboxes)
	}
}

// No event reports the end of a pod that the watch never delivered: it was deleted before its sandbox was made.
func TestAPodThatNobodyToldOfGoesWithItsSandbox(t *testing.T) {
	s := newStory(t)
	web := types.NamespacedName{Namespace: "shop", Name: "web"}
	for _, id := range []string{"1", "2"} { // made again
		s.RunSandbox(start, Sandbox{Pod: web, UID: "uid", Labels: nil, ID: id, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}})
	}
	s.StopSandbox(start, web, "2")
	if n := len(s.pods) + len(s.sandboxes) + len(s.namespaces["shop"].pods); n > 0 {
		t.Errorf("left are %v, %v, %v", s.pods, s.sandboxes, s.namespaces["shop"].pods)
	}
}

func TestANamespacesLabelOverridesTheNodesAudit(t *testing.T) {
	audited := func(s story) bool {
		s.Commit()
		for _, p := range s.Maps().Pods {
			return p.Flags&compiler.Audit != 0
		}
		return false
	}
	for _, tc := range []struct {
		node  bool
		label string
		want  bool
	}{
		{false, "", false}, {false, "audit", true}, {false, "enforce", false}, {false, "other", false},
		{true, "", true}, {true, "audit", true}, {true, "enforce", false}, {true, "other", true},
	} {
		s := newStory(t)
		s.opts.Audit = tc.node
		s.pod("web", "10.0.0.1")
		s.SetNamespace(start, "shop", map[string]string{v1alpha1.LabelEnforcement: tc.label}, false)
		if audited(s) != tc.want {
			t.Errorf("node %v, label %q: audited %v", tc.node, tc.label, !tc.want)
		}
		s.SetNamespace(start, "shop", nil, false)
		if audited(s) != tc.node {
			t.Errorf("node %v, label taken away: audited %v", tc.node, !tc.node)
		}
	}
}
