//go:build envtest

package controller

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// churn changes pods and policies of three namespaces at random, n times.
func (c *cluster) churn(rng *rand.Rand, n int) {
	c.t.Helper()
	namespaces := []string{"a", "b", "d"}
	labels := func() map[string]string { return map[string]string{"app": []string{"web", "db", "dns"}[rng.IntN(3)]} }
	for range n {
		ns := namespaces[rng.IntN(3)]
		switch key := (client.ObjectKey{Namespace: c.ns(ns), Name: fmt.Sprintf("p%d", rng.IntN(8))}); rng.IntN(10) {
		case 0, 1, 2, 3:
			if !c.exists(key, &corev1.Pod{}) {
				c.pod(ns, key.Name, labels(), fmt.Sprintf("10.%d.%d.%d", 100+rng.IntN(3), rng.IntN(200), 1+rng.IntN(200)), corev1.ContainerPort{Name: "http", ContainerPort: int32(80 + rng.IntN(2))})
			}
		case 4, 5:
			if pod := (&corev1.Pod{}); c.exists(key, pod) {
				c.delete(pod)
			}
		case 6:
			if pod := (&corev1.Pod{}); c.exists(key, pod) {
				edit(c, pod, func(p *corev1.Pod) { p.Labels = labels() })
			}
		case 7, 8:
			peer := func() string {
				return []string{
					`{podSelector: {matchLabels: {app: web}}}`, `{podSelector: {}}`, `{namespaceSelector: {matchLabels: {test: ` + c.prefix + `x}}}`,
					`{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}`, `{ipBlock: {cidr: 10.0.0.0/8}}`,
				}[rng.IntN(5)]
			}
			c.policy(ns, fmt.Sprintf("n%d", rng.IntN(4)), fmt.Sprintf(`{podSelector: {}, policyTypes: [Ingress, Egress],
				ingress: [{from: [%s, %s]}], egress: [{to: [%s], ports: [{port: http}, {port: 53}]}]}`, peer(), peer(), peer()))
		case 9:
			np := &networkingv1.NetworkPolicy{}
			if c.exists(client.ObjectKey{Namespace: c.ns(ns), Name: fmt.Sprintf("n%d", rng.IntN(4))}, np) {
				c.delete(np)
			}
		}
	}
}

func (c *cluster) exists(key client.ObjectKey, obj client.Object) bool {
	c.t.Helper()
	err := c.Get(ctx, key, obj)
	if client.IgnoreNotFound(err) != nil {
		c.t.Fatal(err)
	}
	return !apierrors.IsNotFound(err)
}

// expectRight waits until the objects on the API server are those that a new resolver wants, each once.
func (c *cluster) expectRight() {
	c.t.Helper()
	eventually(c.t, func() error {
		r := resolver.New(resolver.Options{SharedNamespace: shared, MaxAddresses: maxAddresses})
		var namespaces corev1.NamespaceList
		var pods corev1.PodList
		var policies networkingv1.NetworkPolicyList
		var endpoints v1alpha1.PolicyEndpointList
		var parts v1alpha1.PolicyEndpointSliceList
		for _, list := range []client.ObjectList{&namespaces, &pods, &policies, &endpoints, &parts} {
			if err := c.List(ctx, list); err != nil {
				return err
			}
		}
		for i := range namespaces.Items {
			r.SetNamespace(namespaces.Items[i].Name, namespaces.Items[i].Labels)
		}
		for i := range pods.Items {
			r.SetPod(resolver.PodOf(&pods.Items[i]))
		}
		for i := range policies.Items {
			r.SetPolicy(&policies.Items[i])
		}
		want := r.Start(resolver.Existing{})
		if len(want.Endpoints) != len(endpoints.Items) {
			return fmt.Errorf("%d PolicyEndpoints, want %d", len(endpoints.Items), len(want.Endpoints))
		}
		for i := range endpoints.Items {
			pe := &endpoints.Items[i]
			e, ok := r.Endpoint(client.ObjectKeyFromObject(pe))
			if !ok || plan.SetEndpoint(pe, &e) {
				return fmt.Errorf("PolicyEndpoint %s is not right", pe.Name)
			}
		}
		wanted, written := map[string]*v1alpha1.PolicyEndpointSlice{}, map[string]*v1alpha1.PolicyEndpointSlice{}
		for _, s := range want.Slices {
			pes := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.Name.Namespace, Name: s.Name.Name}}
			pes.Spec, _ = r.Slice(s.Name)
			wanted[s.Name.String()] = pes
		}
		for i := range parts.Items {
			written[client.ObjectKeyFromObject(&parts.Items[i]).String()] = &parts.Items[i]
		}
		wantedGroups := groupsIn(wanted)
		for key := range groupsIn(written) {
			if !wantedGroups[key] {
				return fmt.Errorf("group %s should not exist", key)
			}
		}
		for key := range wantedGroups {
			want, _ := membersOf(wanted, key)
			got, complete := membersOf(written, key)
			slices.Sort(want)
			slices.Sort(got)
			if !complete || !slices.Equal(want, got) {
				return fmt.Errorf("group %s is %v (complete: %t), want %v", key, got, complete, want)
			}
		}
		return nil
	})
}

// groupsIn lists the groups of which slices have a part.
func groupsIn(byName map[string]*v1alpha1.PolicyEndpointSlice) map[policy.GroupKey]bool {
	out := map[policy.GroupKey]bool{}
	for _, pes := range byName {
		for i := range pes.Spec.Groups {
			out[resolver.GroupOf(pes.Namespace, &pes.Spec.Groups[i])] = true
		}
	}
	return out
}

// recorded is one write as the API server saw it.
type recorded struct {
	version uint64
	gone    bool
	pe      *v1alpha1.PolicyEndpoint
	pes     *v1alpha1.PolicyEndpointSlice
}

// record watches both kinds until the returned function is called, which returns all writes in order.
func (c *cluster) record() func() []recorded {
	c.t.Helper()
	w, err := client.NewWithWatch(admin, client.Options{Scheme: scheme})
	if err != nil {
		c.t.Fatal(err)
	}
	watching, cancel := context.WithCancel(ctx)
	var mu sync.Mutex
	var all []recorded
	var wg sync.WaitGroup
	for _, list := range []client.ObjectList{&v1alpha1.PolicyEndpointList{}, &v1alpha1.PolicyEndpointSliceList{}} {
		events, err := w.Watch(watching, list)
		if err != nil {
			c.t.Fatal(err)
		}
		wg.Go(func() {
			for e := range events.ResultChan() {
				if e.Type == watch.Error { // cancelled; if the watch had failed before, the last object would be missing
					return
				}
				r := recorded{gone: e.Type == watch.Deleted}
				switch obj := e.Object.(type) {
				case *v1alpha1.PolicyEndpoint:
					r.pe = obj
					r.version, _ = strconv.ParseUint(obj.ResourceVersion, 10, 64)
				case *v1alpha1.PolicyEndpointSlice:
					r.pes = obj
					r.version, _ = strconv.ParseUint(obj.ResourceVersion, 10, 64)
				}
				mu.Lock()
				all = append(all, r)
				mu.Unlock()
			}
		})
	}
	return func() []recorded {
		// both watches have delivered everything when they have delivered these
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: "last"}, Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "Test", Name: "last"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"}}}
		pes := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: "last"}, Spec: v1alpha1.PolicyEndpointSliceSpec{Groups: []v1alpha1.GroupPart{{Name: "last"}}}}
		c.create(pe)
		c.create(pes)
		eventually(c.t, func() error {
			mu.Lock()
			defer mu.Unlock()
			if !slices.ContainsFunc(all, func(r recorded) bool { return r.pe != nil && r.pe.Name == "last" }) || !slices.ContainsFunc(all, func(r recorded) bool { return r.pes != nil && r.pes.Name == "last" }) {
				return fmt.Errorf("the watches are behind")
			}
			return nil
		})
		cancel()
		wg.Wait()
		slices.SortFunc(all, func(a, b recorded) int { return cmp.Compare(a.version, b.version) })
		return all
	}
}

// A reader that sees every write in its order has each group complete before a policy refers to it, and finds
// no complete group without an address that stays.
func TestWritesComeInAnOrderThatReadersCanRelyOn(t *testing.T) {
	c := newCluster(t, "a", "b", "d")
	stop := c.record()
	startController(t, false)
	rng := rand.New(rand.NewPCG(1, 2))
	c.churn(rng, 400)
	c.expectRight()
	// a group of many slices grows and shrinks
	np := c.policy("a", "all", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: many}}}]}]}`)
	for i := range 6 * maxAddresses {
		c.pod("a", fmt.Sprintf("many%d", i), map[string]string{"app": "many"}, fmt.Sprintf("10.200.0.%d", i+1))
	}
	c.expectRight()
	var stay []string
	for i := range 6 * maxAddresses {
		if i%3 == 0 {
			stay = append(stay, fmt.Sprintf("10.200.0.%d/32", i+1))
		} else {
			c.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("a"), Name: fmt.Sprintf("many%d", i)}})
		}
	}
	c.expectRight()
	c.delete(np)
	c.expectRight()

	endpoints := map[string]*v1alpha1.PolicyEndpoint{}
	parts := map[string]*v1alpha1.PolicyEndpointSlice{}
	writes := stop()
	seen := map[string]bool{}
	wasComplete := map[policy.GroupKey]bool{}
	incomplete := 0
	for _, w := range writes {
		switch {
		case w.pe != nil && w.gone:
			delete(endpoints, w.pe.Namespace+"/"+w.pe.Name)
		case w.pe != nil:
			endpoints[w.pe.Namespace+"/"+w.pe.Name] = w.pe
		case w.gone:
			delete(parts, w.pes.Namespace+"/"+w.pes.Name)
		default:
			parts[w.pes.Namespace+"/"+w.pes.Name] = w.pes
		}
		for _, pe := range endpoints {
			for _, key := range policy.GroupKeys(pe.Namespace, shared, pe.Spec.Ingress, pe.Spec.Egress) {
				held, complete := membersSet(parts, key)
				if !complete && (w.pe == pe || !wasComplete[key]) {
					t.Fatalf("after write %d: %s refers to %s, which is not complete", w.version, pe.Name, key)
				}
				if wasComplete[key] = true; !complete { // agents keep its members
					incomplete++
					continue
				}
				for _, a := range stay {
					if strings.HasPrefix(pe.Name, "all-") && seen[a] && !held[a] {
						t.Fatalf("after write %d: %s, which stays, is not in the group", w.version, a)
					}
					seen[a] = seen[a] || strings.HasPrefix(pe.Name, "all-") && held[a]
				}
			}
		}
	}
	t.Logf("%d writes; %d times a group was not complete after one", len(writes), incomplete)
}

// An edit is reverted before the PolicyEndpoint is written, because that waits for new groups. Agents that use
// the old groups miss no address.
func TestARevertedEditHidesNoAddress(t *testing.T) {
	c := newCluster(t, "a")
	startController(t, false)
	before := `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: many}}}]}]}`
	np := c.policy("a", "edited", before)
	c.expectRight()
	var all []string
	for i := range 5*maxAddresses - 1 { // created in another order than that of their names
		ip := fmt.Sprintf("10.201.0.%d", i+1)
		c.pod("a", fmt.Sprintf("many%d", 99-i), map[string]string{"app": "many"}, ip)
		all = append(all, ip+"/32")
	}
	c.expectRight()
	pe, err := c.endpointOf(np)
	if err != nil {
		t.Fatal(err)
	}
	key := policy.GroupKey{Namespace: c.ns("a"), Name: pe.Spec.Ingress[0].Peers[0].Group.Name}
	var peers []string
	for i := range 40 {
		peers = append(peers, fmt.Sprintf("{podSelector: {matchLabels: {app: other%d}}}", i))
	}
	parts := map[string]*v1alpha1.PolicyEndpointSlice{}
	var list v1alpha1.PolicyEndpointSliceList
	if err := c.List(ctx, &list); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		parts[list.Items[i].Namespace+"/"+list.Items[i].Name] = &list.Items[i]
	}
	stop := c.record()
	c.policy("a", "edited", fmt.Sprintf("{podSelector: {}, ingress: [{from: [%s]}]}", strings.Join(peers, ", ")))
	c.policy("a", "edited", before)
	c.expectRight()
	refers := true
	for _, w := range stop() {
		switch {
		case w.pe != nil && w.pe.Name == pe.Name:
			refers = slices.Contains(policy.GroupKeys(w.pe.Namespace, shared, w.pe.Spec.Ingress, w.pe.Spec.Egress), key)
		case w.pes == nil:
		case w.gone:
			delete(parts, w.pes.Namespace+"/"+w.pes.Name)
		default:
			parts[w.pes.Namespace+"/"+w.pes.Name] = w.pes
		}
		held, complete := membersSet(parts, key)
		for _, a := range all {
			if refers && complete && !held[a] {
				t.Fatalf("after write %d: %s is not in the group", w.version, a)
			}
		}
	}
}

// membersSet returns the members of a group, and whether it is complete.
func membersSet(byName map[string]*v1alpha1.PolicyEndpointSlice, key policy.GroupKey) (held map[string]bool, complete bool) {
	members, complete := membersOf(byName, key)
	held = map[string]bool{}
	for _, a := range members {
		held[a] = true
	}
	return held, complete
}

func TestAnotherControllerTakesOverInTheMiddleOfChurn(t *testing.T) {
	c := newCluster(t, "a", "b", "d")
	stopFirst := startController(t, true)
	rng := rand.New(rand.NewPCG(3, 4))
	c.churn(rng, 60)
	c.expectRight()
	startController(t, true) // it waits, and watches
	c.churn(rng, 60)
	go stopFirst()
	c.churn(rng, 150)
	c.expectRight()
	stopFirst()
	startController(t, true) // a third, so that the second is not alone
	c.churn(rng, 40)
	c.expectRight()
}
