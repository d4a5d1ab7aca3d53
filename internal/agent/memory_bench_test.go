package agent

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// BenchmarkMemory is what an agent's heap has of an address: 100,000 addresses in one group or three, of 100 groups in kidoban's own
// namespace, in slices of 100, and a policy of one pod for each group or for none. It counts the objects that a watch keeps, the node's state,
// and the compiler's.
func BenchmarkMemory(b *testing.B) {
	for _, each := range []int{1, 3} {
		b.Run(fmt.Sprint("groups=", each), func(b *testing.B) { benchmarkMemory(b, each, 100) })
		b.Run(fmt.Sprint("unused groups=", each), func(b *testing.B) { benchmarkMemory(b, each, 0) })
	}
}

// benchmarkMemory measures with policies that use so many of the 100 groups.
func benchmarkMemory(b *testing.B, each, used int) {
	const addresses, groups, perSlice, shared = 100_000, 100, 100, "kidoban-system"
	now := time.Unix(1_000_000_000, 0)
	for b.Loop() {
		before := heap()
		n := node.New(node.Options{SharedNamespace: shared})
		n.SetPod(now, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
		})
		var watched []any
		for _, pes := range slicesByClass(addresses, groups, each, perSlice) {
			obj := policy.ReadSlice(overTheWire(b, pes))
			watched = append(watched, obj)
			if err := n.SetSlice(now, obj); err != nil {
				b.Fatal(err)
			}
		}
		for i := range used {
			pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("p", i)}}
			pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: pe.Name}
			pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
			peers := []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: groupName(i), Shared: true}}}
			pe.Spec.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: peers}}
			if err := n.SetPolicyEndpoint(now, policy.ReadEndpoint(pe, shared)); err != nil {
				b.Fatal(err)
			}
		}
		n.NamespaceSynced(now, "shop")
		n.NamespaceSynced(now, shared)
		n.Commit()
		if got := len(n.Maps().Addresses); used == groups && got < addresses {
			b.Fatalf("%d addresses are in the map", got)
		}
		b.ReportMetric((heap()-before)/addresses, "bytes/address")
		runtime.KeepAlive(n)
		runtime.KeepAlive(watched)
	}
	b.ReportMetric(0, "ns/op")
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func groupName(i int) string { return fmt.Sprintf("g-%016x", i) }

// overTheWire returns a slice as it comes from the API server.
func overTheWire(b *testing.B, pes *v1alpha1.PolicyEndpointSlice) *v1alpha1.PolicyEndpointSlice {
	pes.UID, pes.ResourceVersion, pes.Generation = types.UID("01234567-89ab-cdef-0123-456789abcdef"), "1234567", 12
	pes.Labels = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController}
	data, err := json.Marshal(pes)
	if err != nil {
		b.Fatal(err)
	}
	out := &v1alpha1.PolicyEndpointSlice{}
	if err := json.Unmarshal(data, out); err != nil {
		b.Fatal(err)
	}
	return out
}

func cidr(i int) v1alpha1.CIDR {
	return v1alpha1.CIDR(fmt.Sprintf("11.%d.%d.%d/32", i>>16, i>>8&255, i&255))
}

// groupsOf are the groups of an address. Ten addresses in a row are in the same ones.
func groupsOf(i, groups, each int) (out []int32) {
	for g := range each {
		out = append(out, int32((i/10+g)%groups))
	}
	return out
}

var typicalSelector = &v1alpha1.GroupSelector{
	NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "team-001"}},
	PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "frontend"}},
}

// slicesByClass are slices with the addresses. The list of each group is in the first slice that has addresses of it.
func slicesByClass(addresses, groups, each, perSlice int) []*v1alpha1.PolicyEndpointSlice {
	var out []*v1alpha1.PolicyEndpointSlice
	lists := make([]*v1alpha1.GroupPart, groups)
	for first := 0; first < addresses; first += perSlice {
		pes := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "kidoban-system", Name: fmt.Sprintf("s-%016x", first)}}
		index := map[int32]int32{}
		for i := first; i < first+perSlice; i++ {
			pes.Spec.Addresses = append(pes.Spec.Addresses, cidr(i))
			if i%10 > 0 {
				pes.Spec.Classes[len(pes.Spec.Classes)-1].Count++
				continue
			}
			class := v1alpha1.AddressClass{Count: 1}
			for _, g := range groupsOf(i, groups, each) {
				if _, ok := index[g]; !ok {
					index[g] = int32(len(pes.Spec.Groups))
					pes.Spec.Groups = append(pes.Spec.Groups, v1alpha1.GroupPart{Name: groupName(int(g))})
				}
				class.Groups = append(class.Groups, index[g])
			}
			slices.Sort(class.Groups)
			pes.Spec.Classes = append(pes.Spec.Classes, class)
		}
		pes.Spec.Count = int32(len(pes.Spec.Addresses))
		for g, i := range index {
			if lists[g] == nil {
				lists[g] = &pes.Spec.Groups[i]
				lists[g].Selector = typicalSelector
			}
			lists[g].Slices = append(lists[g].Slices, pes.Name)
		}
		out = append(out, pes)
	}
	return out
}
