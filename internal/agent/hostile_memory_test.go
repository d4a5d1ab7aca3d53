//go:build hostile

package agent

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/startup"
)

const (
	largePolicies   = 200
	mostAgentMemory = 512 << 20
	// goLimit is what the agent's runtime has for its heap at default limits: see --memory-limit.
	goLimit = (1536 - 1015) << 20 * 9 / 10
	// hostileAPI is the environment variable that makes the test's program an agent of the API server that it names.
	hostileAPI = "KIDOBAN_TEST_HOSTILE_API"
)

// TestHostilePoliciesFitTheAgentsMemory runs an agent with 200 policies of as many blocks as the schema admits, all of one pod. The agent is a
// process of its own, so that the most memory that it ever had is known.
func TestHostilePoliciesFitTheAgentsMemory(t *testing.T) {
	api := httptest.NewServer(newWatched(t))
	defer api.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostileAgentOfLargePolicies$", "-test.timeout=20m")
	cmd.Env = append(os.Environ(), hostileAPI+"="+api.URL, "GOMEMLIMIT="+strconv.Itoa(goLimit))
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var peak, inForce uint64
	_, result, _ := strings.Cut(string(out), "result: ")
	if _, err := fmt.Sscan(result, &peak, &inForce); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	t.Logf("%d policies of %d blocks in %v, %d in force, the others isolate: at most %d MiB", largePolicies, mostBlocks, time.Since(began), inForce, peak>>20)
	if peak > mostAgentMemory {
		t.Errorf("the agent had %d MiB, more than %d", peak>>20, mostAgentMemory>>20)
	}
	if inForce == 0 {
		t.Error("no policy is in force")
	}
}

// TestHostileAgentOfLargePolicies is the process of the agent. On its own it has no API server.
func TestHostileAgentOfLargePolicies(t *testing.T) {
	url := os.Getenv(hostileAPI)
	if url == "" {
		return
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	mgr, err := manager.New(&rest.Config{Host: url}, manager.Options{
		Scheme: scheme, Cache: CacheOptions("node"), Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		MapperProvider: startup.Mapper(
			[]schema.GroupVersionKind{
				corev1.SchemeGroupVersion.WithKind("Pod"), v1alpha1.GroupVersion.WithKind("PolicyEndpoint"), v1alpha1.GroupVersion.WithKind("PolicyEndpointSlice"),
			},
			[]schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Namespace"), v1alpha1.GroupVersion.WithKind("ClusterPolicyEndpoint")}),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := New(mgr.GetCache(), newFakeKernel(), Options{
		NamespaceCache: NamespaceCaches(mgr, shared), SharedNamespace: shared, CheckInterval: time.Minute, RuleSeries: 10,
		Registry: prometheus.NewRegistry(), Log: logr.Discard(),
	})
	if err := mgr.Add(a); err != nil {
		t.Fatal(err)
	}
	go func() { _ = mgr.Start(t.Context()) }()
	for deadline := time.Now().Add(15 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		inForce, decided := 0, 0
		a.state.read(func(n *node.Node) {
			for _, r := range n.PolicyReports() {
				switch r.Reason {
				case "":
					inForce++
					decided++
				case node.ReasonOverBudget:
					decided++
				}
			}
		})
		if decided == largePolicies {
			fmt.Println("result:", peakMemory(t), inForce)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d policies are decided", decided, largePolicies)
		}
	}
}

// peakMemory is the most memory that this process had.
func peakMemory(t *testing.T) uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	var kib uint64
	_, value, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(value, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

const mostBlocks = 400 * v1alpha1.MaxPeersPerRule

// manyBlocks is a policy of pods of namespace shop with the most blocks, no two of which unite. Each rule has a port of its own.
func manyBlocks(number int) *v1alpha1.PolicyEndpoint {
	pe := policyEndpoint(fmt.Sprint("p", number))
	pe.TypeMeta = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "PolicyEndpoint"}
	pe.UID, pe.ResourceVersion, pe.Generation = types.UID(pe.Name), "1", 1
	for i := range 400 {
		r := v1alpha1.Rule{Action: v1alpha1.ActionAllow, RuleIndexes: []int32{int32(i)}, Ports: []v1alpha1.Port{{Protocol: v1alpha1.ProtocolTCP, Port: int32(1 + i)}}}
		for j := range v1alpha1.MaxPeersPerRule {
			var addr [4]byte
			binary.BigEndian.PutUint32(addr[:], 11<<24+2*uint32((number*400+i)*v1alpha1.MaxPeersPerRule+j))
			r.Peers = append(r.Peers, v1alpha1.Peer{CIDR: v1alpha1.CIDR(netip.PrefixFrom(netip.AddrFrom4(addr), 32).String())})
		}
		pe.Spec.Ingress = append(pe.Spec.Ingress, r)
	}
	return pe
}

// watched answers watches as an API server does: with all objects that exist, and a bookmark. Nothing happens after that.
type watched struct {
	objects map[string][][]byte // by the path's end
}

func newWatched(t *testing.T) *watched {
	w := &watched{objects: map[string][][]byte{}}
	add := func(path string, obj any) {
		data, err := json.Marshal(map[string]any{"type": "ADDED", "object": obj})
		if err != nil {
			t.Fatal(err)
		}
		w.objects[path] = append(w.objects[path], data)
	}
	web := pod("web", "10.0.0.1")
	web.TypeMeta, web.ResourceVersion = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, "1"
	add("/api/v1/pods", web)
	for i := range largePolicies {
		add("/apis/"+v1alpha1.GroupVersion.String()+"/namespaces/shop/policyendpoints", manyBlocks(i))
	}
	return w
}

// kinds are those of the bookmarks, by the last part of a path.
var kinds = map[string]metav1.TypeMeta{
	"pods":                   {APIVersion: "v1", Kind: "Pod"},
	"namespaces":             {APIVersion: "v1", Kind: "Namespace"},
	"policyendpoints":        {APIVersion: v1alpha1.GroupVersion.String(), Kind: "PolicyEndpoint"},
	"policyendpointslices":   {APIVersion: v1alpha1.GroupVersion.String(), Kind: "PolicyEndpointSlice"},
	"clusterpolicyendpoints": {APIVersion: v1alpha1.GroupVersion.String(), Kind: "ClusterPolicyEndpoint"},
}

func (w *watched) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	kind, ok := kinds[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
	if !ok || r.URL.Query().Get("sendInitialEvents") != "true" {
		http.Error(out, "only watches with initial events", http.StatusBadRequest)
		return
	}
	out.Header().Set("Content-Type", "application/json")
	bookmark := fmt.Appendf(nil, `{"type": "BOOKMARK", "object": {"apiVersion": %q, "kind": %q, "metadata": {"resourceVersion": "1", "annotations": {%q: "true"}}}}`,
		kind.APIVersion, kind.Kind, metav1.InitialEventsAnnotationKey)
	for _, event := range slices.Concat(w.objects[r.URL.Path], [][]byte{bookmark}) {
		if _, err := out.Write(append(bytes.Clone(event), '\n')); err != nil {
			return
		}
	}
	if f, ok := out.(http.Flusher); ok {
		f.Flush()
	}
	<-r.Context().Done()
}
