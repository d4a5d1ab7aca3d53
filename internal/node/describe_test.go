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
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

func ownedBy(kind, name string, labels map[string]string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Labels = labels
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}}
	}
}

func TestAPodsWorkload(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		want   agentapi.Workload
	}{
		{"its own", func(*corev1.Pod) {}, agentapi.Workload{Kind: "Pod", Name: "web"}},
		{"a StatefulSet's", ownedBy("StatefulSet", "cart", nil), agentapi.Workload{Kind: "StatefulSet", Name: "cart"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory(t)
			s.pod("web", "10.0.0.1", tc.change)
			if got, ok := s.PodAt(netip.MustParseAddr("10.0.0.1")); !ok || got.Name != "web" || got.Workload == nil || *got.Workload != tc.want {
				t.Errorf("%+v of %+v, %v", got, got.Workload, ok)
			}
		})
	}
}

// The container runtime reports a pod before the watch of the API server delivers it.
func TestAWorkloadThatIsKnownLater(t *testing.T) {
	s := newStory(t)
	key, addr := types.NamespacedName{Namespace: "shop", Name: "web"}, netip.MustParseAddr("10.0.0.1")
	s.RunSandbox(start, Sandbox{Pod: key, UID: "web10.0.0.1", Labels: map[string]string{"app": "web"}, ID: "1", Addresses: []netip.Addr{addr}})
	if got, _ := s.PodAt(addr); got.Workload != nil {
		t.Errorf("before its object is here, the workload is %v", got.Workload)
	}
	s.pod("web", "10.0.0.1", func(pod *corev1.Pod) { ownedBy("StatefulSet", "web", pod.Labels)(pod) })
	if got, _ := s.PodAt(addr); got.Workload == nil || got.Workload.Kind != "StatefulSet" {
		t.Errorf("the workload is %v", got.Workload)
	}
}

func TestAPodsNameOutlivesIt(t *testing.T) {
	s := newStory(t)
	addr := netip.MustParseAddr("10.0.0.1")
	s.pod("old", "10.0.0.1")
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "old"})
	if got, ok := s.PodAt(addr); !ok || got.Name != "old" {
		t.Errorf("%+v, %v", got, ok)
	}
	s.pod("new", "10.0.0.1")
	if got, ok := s.PodAt(addr); !ok || got.Name != "new" {
		t.Errorf("%+v, %v", got, ok)
	}
	s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "new"})
	s.ForgetNames(start.Add(NamePatience))
	if _, ok := s.PodAt(addr); !ok {
		t.Error("the name is forgotten at once")
	}
	s.ForgetNames(start.Add(2 * NamePatience))
	if _, ok := s.PodAt(addr); ok {
		t.Error("the name is kept for ever")
	}
}

func TestAPolicyIsRealisedWhenTheKernelHasIt(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	describe := func() agentapi.Policy {
		key := types.NamespacedName{Namespace: "shop", Name: "allow"}
		return s.describePolicy(key, s.policies[key])
	}
	generation := int64(0)
	put := func(group string) {
		generation++
		err := s.SetPolicyEndpoint(start, &v1alpha1.PolicyEndpoint{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "allow", UID: "object", Generation: generation},
			Spec: v1alpha1.PolicyEndpointSpec{
				PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "allow-web", UID: "policy", Generation: 10 * generation},
				PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
				Ingress:     []v1alpha1.Rule{fromGroup(group)},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("g")
	if p := describe(); p.State != agentapi.StatePending || p.Realised != nil || len(p.WaitingFor) != 1 || p.WaitingFor[0] != "shop/g" {
		t.Errorf("without its group: %+v", p)
	}
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	if p := describe(); p.State != agentapi.StatePending || p.Realised != nil || len(p.WaitingFor) != 0 {
		t.Errorf("before it is written: %+v", p)
	}
	now := start.Add(time.Second)
	s.Applied(now, s.Revision(), true)
	p := describe()
	if p.State != agentapi.StateInForce || p.Realised == nil || p.Realised.Generation != 10 || !p.Realised.Since.Equal(now) || p.Name != "allow-web" || p.Pods != 1 {
		t.Errorf("in force: %+v, %+v", p, p.Realised)
	}
	put("other")
	if p := describe(); p.State != agentapi.StatePending || p.Newest.Generation != 20 || p.Realised == nil || p.Realised.Generation != 10 {
		t.Errorf("with a version that waits: %+v, %+v", p, p.Realised)
	}
}

func TestAStatusAloneIsNoNewVersion(t *testing.T) {
	s := newStory(t)
	pe := &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny", UID: "object", Generation: 1},
		Spec: v1alpha1.PolicyEndpointSpec{PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "deny"},
			PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}},
	}
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		t.Fatal(err)
	}
	s.Applied(start, s.Revision(), true)
	pe = pe.DeepCopy()
	pe.Status.Peers = 7
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		t.Fatal(err)
	}
	if len(s.unapplied.versions) != 0 {
		t.Error("it is compiled again")
	}
	pe = pe.DeepCopy()
	pe.UID = "made again"
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		t.Fatal(err)
	}
	if len(s.unapplied.versions) != 1 {
		t.Error("an object that was made again is taken for the old one")
	}
	s.Applied(start, s.Revision(), true)
	pe = pe.DeepCopy() // etcd was restored, and its generation is counted again from an older one
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	if err := s.SetPolicyEndpoint(start, pe); err != nil {
		t.Fatal(err)
	}
	if len(s.unapplied.versions) != 1 {
		t.Error("another spec of the same generation is taken for the old one")
	}
}

func TestAPodsEffectiveRules(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1", func(pod *corev1.Pod) {
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	})
	s.slice("shop", "g", 0, 1, "10.0.0.2/32", "10.0.0.3/32")
	rule := fromGroup("g")
	rule.RuleIndexes, rule.Ports = []int32{0, 2}, []v1alpha1.Port{{Name: "http"}}
	s.endpoint("allow", everyPod, rule, v1alpha1.Rule{Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/8"}}, Ports: []v1alpha1.Port{{Name: "nothing"}}})
	s.Commit()
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	p := s.describePod(key, s.pods[key], true)
	if p.State != agentapi.StateInForce || p.Mode != agentapi.ModeStandard || !p.Ingress.Isolated || p.Egress.Isolated || len(p.Ingress.Rules) != 2 {
		t.Fatalf("%+v", p)
	}
	r := p.Ingress.Rules[0]
	if r.Policy.Name != "allow" || len(r.Policy.Rules) != 2 || r.Peers[0].Group != "shop/g" || r.Peers[0].Addresses != 2 {
		t.Errorf("%+v", r)
	}
	if len(r.Ports) != 1 || r.Ports[0] != (agentapi.Port{Protocol: "TCP", First: 8080, Last: 8080}) || r.NoPorts {
		t.Errorf("ports %+v", r.Ports)
	}
	if r := p.Ingress.Rules[1]; !r.NoPorts || len(r.Ports) != 0 || r.Peers[0].CIDR.String() != "10.0.0.0/8" {
		t.Errorf("a name that the pod does not have: %+v", r)
	}
}

// A policy that does not fit into the node's maps isolates its pods, and says so; one of another namespace is in force.
func TestAPolicyThatDoesNotFitIsReported(t *testing.T) {
	s := newStory(t)
	s.Node = New(Options{SharedNamespace: shared, Capacity: compiler.Usage{Addresses: 64, Networks: 64, Rows: 64, Ports: 64}, Namespaces: 4})
	s.namespaces["shop"] = newNamespace()
	s.NamespaceSynced(start, "shop")
	s.pod("web", "10.0.0.1")
	var rules []v1alpha1.Rule
	for i := range 60 {
		rules = append(rules, v1alpha1.Rule{
			Peers: []v1alpha1.Peer{{CIDR: v1alpha1.CIDR(fmt.Sprintf("10.1.0.%d/32", i))}}, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: int32(1 + i)}},
		})
	}
	s.endpoint("large", everyPod, rules...)
	s.Commit()
	policies := s.DescribePolicies()
	if len(policies) != 1 || policies[0].State != agentapi.StateIsolating || policies[0].Problem == "" {
		t.Errorf("%+v", policies)
	}
	if got := s.Maps().Pods[netip.MustParseAddr("10.0.0.1")]; got.Sets[policy.Ingress] == 0 {
		t.Error("the pod is not isolated")
	}
}

// What is reported about a packet is read some seconds later: another pod may have the address by then.
func TestAnAddressNamesThePodOfTheTime(t *testing.T) {
	s := newStory(t)
	addr, after := netip.MustParseAddr("10.0.0.1"), func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	created := map[string]time.Time{"old": after(-10), "new": after(5)}
	object := func(name string) *corev1.Pod {
		return podObject(name, "10.0.0.1", func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(created[name]) })
	}
	s.SetPod(after(0), object("old"))
	s.SetPod(after(10), object("new"))
	s.DeletePod(after(20), object("old"))
	s.SetPod(after(30), object("new"))
	for seconds, want := range map[int]string{5: "old", 9: "old", 10: "new", 15: "new", 25: "new", 100: "new"} {
		if got, ok := s.PodThen(addr, after(seconds)); !ok || got.Name != want || got.UID == "" {
			t.Errorf("after %d s: %+v, %v; want %s", seconds, got, ok, want)
		}
	}
	s.DeletePod(after(40), object("new"))
	if got, ok := s.PodThen(addr, after(35)); !ok || got.Name != "new" {
		t.Errorf("the pod that is gone: %+v, %v", got, ok)
	}
	s.ForgetNames(after(40).Add(2 * NamePatience))
	if got, ok := s.PodThen(addr, after(35)); ok {
		t.Errorf("the name is kept for ever: %+v", got)
	}
}
