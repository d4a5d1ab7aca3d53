package node

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// TestAPolicyTakesAFewBytesForEachBlock measures policies of as many blocks as the schema admits, none of which unite: what a watch and the node's
// state keep of them while no pod is compiled with them.
func TestAPolicyTakesAFewBytesForEachBlock(t *testing.T) {
	const policies, mostBytes = 20, 10 // for each block: its 5 bytes, and what its rule takes
	now := time.Unix(1_000_000_000, 0)
	objects := make([][]byte, policies)
	for i := range objects {
		objects[i] = manyBlocks(t, i)
	}
	before := heap()
	n := New(Options{SharedNamespace: shared})
	n.SetPod(now, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "web"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
	})
	var watched []*policy.Endpoint
	for _, object := range objects {
		pe := &v1alpha1.PolicyEndpoint{}
		if err := json.Unmarshal(object, pe); err != nil {
			t.Fatal(err)
		}
		e := policy.ReadEndpoint(pe, shared)
		watched = append(watched, e)
		if err := n.SetPolicyEndpoint(now, e); err != nil {
			t.Fatal(err)
		}
	}
	got := (heap() - before) / policies / mostBlocks
	runtime.KeepAlive(n)
	runtime.KeepAlive(watched)
	runtime.KeepAlive(objects)
	t.Logf("%.1f bytes for each block", got)
	if got > mostBytes {
		t.Errorf("%.1f bytes for each block, at most %d are allowed", got, mostBytes)
	}
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

const mostBlocks = 400 * v1alpha1.MaxPeersPerRule

// manyBlocks is a PolicyEndpoint with the most blocks, as it comes from the API server. Each rule has a port of its own.
func manyBlocks(t *testing.T, number int) []byte {
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: fmt.Sprint("p", number), ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kidoban"}},
	}}
	pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: pe.Name}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
	for i := range 400 {
		r := v1alpha1.Rule{Action: v1alpha1.ActionAllow, RuleIndexes: []int32{int32(i)}, Ports: []v1alpha1.Port{{Protocol: v1alpha1.ProtocolTCP, Port: int32(1 + i)}}}
		for j := range v1alpha1.MaxPeersPerRule {
			var addr [4]byte
			binary.BigEndian.PutUint32(addr[:], 11<<24+2*uint32((number*400+i)*v1alpha1.MaxPeersPerRule+j)) // in no larger block with the next
			r.Peers = append(r.Peers, v1alpha1.Peer{CIDR: v1alpha1.CIDR(netip.PrefixFrom(netip.AddrFrom4(addr), 32).String())})
		}
		pe.Spec.Ingress = append(pe.Spec.Ingress, r)
	}
	data, err := json.Marshal(pe)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
