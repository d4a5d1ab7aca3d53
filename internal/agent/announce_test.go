package agent

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/stream"
	streamclient "github.com/kidoban/kidoban/internal/stream/client"
)

// fakeStream is the stream to a controller that a test plays.
type fakeStream struct {
	mu        sync.Mutex
	hasLeader bool
	handler   streamclient.Handler
	added     []*stream.SandboxAdded
	ended     []string
	policies  map[streamclient.PolicyKey]*stream.PolicyState
	reports   int
	unseen    []*stream.Unseen
	answer    func(added *stream.SandboxAdded, h streamclient.Handler) // in a goroutine of its own, for each announcement
}

func (s *fakeStream) Run(ctx context.Context, h streamclient.Handler) {
	s.mu.Lock()
	s.handler = h
	s.mu.Unlock()
	<-ctx.Done()
}

func (s *fakeStream) AddSandbox(added *stream.SandboxAdded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.added = append(s.added, added)
	if s.answer != nil {
		go s.answer(added, s.handler)
	}
}

func (s *fakeStream) EndSandbox(uid string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, uid)
}

func (s *fakeStream) SetPolicies(now map[streamclient.PolicyKey]*stream.PolicyState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.policies = now
	s.reports++
}

func (s *fakeStream) SetUnseen(now []*stream.Unseen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unseen = now
}

func (s *fakeStream) HasLeader() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasLeader
}

func (s *fakeStream) setLeader(leads bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hasLeader = leads
}

// published answers each announcement after a while.
func published(after time.Duration, m *stream.Published) func(*stream.SandboxAdded, streamclient.Handler) {
	return func(added *stream.SandboxAdded, h streamclient.Handler) {
		time.Sleep(after)
		h.Published(&stream.Published{Uid: added.GetUid(), Groups: m.GetGroups(), Left: m.GetLeft(), Confirms: m.GetConfirms()})
	}
}

// with runs an Agent with a controller.
func with(t *testing.T, s *fakeStream, test func(r *running)) {
	s.hasLeader = true
	runWith(t, func(o *Options) { o.Stream, o.HoldTimeout = s, DefaultHoldTimeout }, nil, func(r *running) {
		r.add(pod("other", "10.0.0.9"))
		r.sleep(time.Second)
		test(r)
	})
}

// start is the runtime's call for a container of a pod. It returns how long the runtime waited.
func (r *running) start(name, ip string) (waited time.Duration, err error) {
	begin := time.Now()
	err = r.agent.Plugin().StartContainer(r.Context(), sandbox(name, ip), &api.Container{})
	return time.Since(begin), err
}

func (r *running) starts(name, ip string, want time.Duration) {
	r.Helper()
	if waited, err := r.start(name, ip); err != nil || waited != want {
		r.Errorf("%s: waited %v, %v; want %v", name, waited, err, want)
	}
}

// slice is a complete group with these addresses.
func slice(group string, addresses ...v1alpha1.CIDR) *v1alpha1.PolicyEndpointSlice {
	return &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: group + "-0"},
		Spec: v1alpha1.PolicyEndpointSliceSpec{
			Groups: []v1alpha1.GroupPart{{Name: group, Slices: []string{group + "-0"}}}, Addresses: addresses,
			Classes: []v1alpha1.AddressClass{{Groups: []int32{0}, Count: int32(len(addresses))}},
		},
	}
}

func TestAPodInNoGroupStartsWhenTheControllerHasAnswered(t *testing.T) {
	s := &fakeStream{answer: published(30*time.Millisecond, nil)}
	with(t, s, func(r *running) {
		r.hook("web", "10.0.0.1")
		r.starts("web", "10.0.0.1", 30*time.Millisecond)
		r.starts("web", "10.0.0.1", 0) // its second container
		added := s.added[0]
		if addr, _ := netip.AddrFromSlice(added.GetAddresses()[0]); added.GetUid() != "web" || added.GetNamespace() != "shop" || addr.String() != "10.0.0.1" {
			t.Errorf("announced is %v", added)
		}
		if n := r.metric("kidoban_agent_unknown_pod_starts_total"); n != 0 {
			t.Errorf("%v pods are counted as unknown", n)
		}
	})
}

// A container starts when this node has the pod's addresses in its groups.
func TestAPodWaitsUntilItsGroupsAreInForce(t *testing.T) {
	s := &fakeStream{answer: published(0, &stream.Published{Groups: []*stream.Group{{Namespace: "shop", Name: "g"}, {Namespace: "shop", Name: "unused"}}})}
	with(t, s, func(r *running) {
		r.add(slice("g", "10.0.0.7/32"))
		r.add(policyEndpoint("allow", group("g")))
		r.hook("web", "10.0.0.1")
		r.kernel.setPace(20*time.Millisecond, 0, 0)
		go func() {
			time.Sleep(50 * time.Millisecond)
			i, err := r.namespace("shop").FakeInformerFor(context.Background(), slice("g"))
			if err != nil {
				panic(err)
			}
			i.Update(policy.ReadSlice(slice("g", "10.0.0.7/32")), policy.ReadSlice(slice("g", "10.0.0.7/32", "10.0.0.1/32")))
		}()
		r.starts("web", "10.0.0.1", 70*time.Millisecond)
	})
}

func TestAPodWaitsUntilOtherNodesConfirm(t *testing.T) {
	s := &fakeStream{answer: func(added *stream.SandboxAdded, h streamclient.Handler) {
		h.Published(&stream.Published{Uid: added.GetUid(), Confirms: true})
		time.Sleep(40 * time.Millisecond)
		h.Confirmed(&stream.Confirmed{Uid: added.GetUid()})
	}}
	with(t, s, func(r *running) {
		r.hook("web", "10.0.0.1")
		r.starts("web", "10.0.0.1", 40*time.Millisecond)
	})
}

func TestAPodThatTheControllerRefuses(t *testing.T) {
	s := &fakeStream{answer: func(added *stream.SandboxAdded, h streamclient.Handler) {
		h.Refused(&stream.Refused{Uid: added.GetUid(), Reason: stream.Refused_ADDRESS_IN_USE})
		h.Refused(&stream.Refused{Uid: "unknown"})
	}}
	with(t, s, func(r *running) {
		r.hook("web", "10.0.0.1")
		r.starts("web", "10.0.0.1", 0)
		if n := r.metric("kidoban_agent_unknown_pod_starts_total"); n != 1 {
			t.Errorf("%v pods are counted as unknown", n)
		}
	})
}

// The runtime runs one hook at a time: what a silent controller costs a node is bounded for a burst together.
func TestABurstWithoutAnswers(t *testing.T) {
	for _, hasLeader := range []bool{true, false} {
		s := &fakeStream{}
		with(t, s, func(r *running) {
			s.setLeader(hasLeader)
			sum := time.Duration(0)
			for i := range 20 { // each sandbox, then its container: none has the time that another one waited behind it
				ip := address(100 + i)
				r.hook(ip, ip)
				waited, err := r.start(ip, ip)
				if err != nil {
					t.Error(err)
				}
				sum += waited
			}
			if most := 300 * time.Millisecond; sum >= most || !hasLeader && sum > 0 {
				t.Errorf("leader %v: the containers waited %v together", hasLeader, sum)
			}
			if n := r.metric("kidoban_agent_unknown_pod_starts_total"); n != 20 {
				t.Errorf("%v pods are counted as unknown", n)
			}

			// It answers again: what it has cost is forgotten.
			s.setLeader(true)
			s.mu.Lock()
			s.answer = published(10*time.Millisecond, nil)
			s.mu.Unlock()
			r.hook("first", "10.0.1.1")
			r.sleep(time.Second)
			r.starts("first", "10.0.1.1", 0)
			r.hook("second", "10.0.1.2")
			r.starts("second", "10.0.1.2", 10*time.Millisecond)
		})
	}
}

// A pod that waits behind others has its time counted from its announcement.
func TestTheTimeOfAHoldCountsFromTheAnnouncement(t *testing.T) {
	s := &fakeStream{}
	with(t, s, func(r *running) {
		r.hook("web", "10.0.0.1")
		r.sleep(150 * time.Millisecond)
		r.starts("web", "10.0.0.1", 50*time.Millisecond)
	})
}

// While the controller answers, a pod does not start with an address that may have another pod's rights.
func TestAnAddressThatIsReused(t *testing.T) {
	s := &fakeStream{answer: published(time.Second, &stream.Published{Left: []*stream.Group{{Namespace: "shop", Name: "g"}}})}
	with(t, s, func(r *running) {
		r.add(slice("g", "10.0.0.1/32"))
		r.add(policyEndpoint("allow", group("g")))
		old := pod("old", "10.0.0.1")
		r.add(old)
		i, err := r.pods.FakeInformerFor(r.Context(), old)
		if err != nil {
			t.Fatal(err)
		}
		i.Delete(old)
		r.sleep(100 * time.Millisecond)
		r.hook("web", "10.0.0.1")
		if waited, err := r.start("web", "10.0.0.1"); !errors.Is(err, errReused) || waited != DefaultHoldTimeout {
			t.Errorf("waited %v: %v", waited, err)
		}
		r.sleep(time.Second) // published, and not in force here
		if waited, err := r.start("web", "10.0.0.1"); !errors.Is(err, errReused) || waited != 0 {
			t.Errorf("waited %v: %v", waited, err)
		}
		i, err = r.namespace("shop").FakeInformerFor(r.Context(), slice("g"))
		if err != nil {
			t.Fatal(err)
		}
		i.Update(policy.ReadSlice(slice("g", "10.0.0.1/32")), policy.ReadSlice(slice("g", "10.0.0.7/32")))
		r.sleep(time.Millisecond)
		r.starts("web", "10.0.0.1", 0)
		if n := r.metric("kidoban_agent_reused_address_failures_total"); n != 2 || r.metric("kidoban_agent_unknown_pod_starts_total") != 0 {
			t.Errorf("%v starts failed", n)
		}

		// A silent controller delays it for a while, and no longer.
		s.mu.Lock()
		s.answer = nil
		s.mu.Unlock()
		r.sleep(time.Minute / 2)
		r.hook("again", "10.0.0.1")
		if _, err := r.start("again", "10.0.0.1"); !errors.Is(err, errReused) {
			t.Error(err)
		}
		r.sleep(reuseLimit)
		r.starts("again", "10.0.0.1", 0)
	})
}

func TestWhichSandboxesAreAnnounced(t *testing.T) {
	s := &fakeStream{}
	with(t, s, func(r *running) {
		r.add(pod("known", "10.0.0.1"))
		stopped := sandbox("stopped", "10.0.0.4")
		stopped.Pid = 0
		onHost := sandbox("host", "10.0.0.5")
		onHost.Linux = nil
		running := sandbox("running", "10.0.0.2")
		_, err := r.agent.Plugin().Synchronize(t.Context(), []*api.PodSandbox{sandbox("known", "10.0.0.1"), running, sandbox("new", "10.0.0.3"), stopped, onHost},
			[]*api.Container{{PodSandboxId: running.Id, State: api.ContainerState_CONTAINER_RUNNING}})
		if err != nil {
			t.Fatal(err)
		}
		if len(s.added) != 2 || s.added[0].GetUid() != "running" || s.added[1].GetUid() != "new" {
			t.Errorf("announced are %v", s.added)
		}
		r.starts("running", "10.0.0.2", 0) // another container of it
		r.starts("new", "10.0.0.3", DefaultHoldTimeout)
		plugin := r.agent.Plugin()
		for range 2 {
			if err := plugin.StopPodSandbox(t.Context(), sandbox("new", "10.0.0.3")); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.ended) != 1 || s.ended[0] != "new" {
			t.Errorf("ended are %v", s.ended)
		}
		r.sleep(announcementLife)
		r.agent.announcer.mu.Lock()
		defer r.agent.announcer.mu.Unlock()
		if n := len(r.agent.announcer.byUID) + len(r.agent.announcer.bySandbox); n != 0 {
			t.Errorf("%d announcements are left", n)
		}
	})
}

func TestAQuestionIsAnsweredWhenTheAddressesAreInForce(t *testing.T) {
	s := &fakeStream{}
	with(t, s, func(r *running) {
		r.add(slice("g", "10.0.0.7/32"))
		r.add(policyEndpoint("allow", group("g")))
		var mu sync.Mutex
		answered := map[uint64]bool{}
		ask := func(id uint64, ip string) {
			addr := netip.MustParseAddr(ip)
			q := &stream.AskInForce{Id: id, Addresses: [][]byte{addr.AsSlice()}, Groups: []*stream.Group{{Namespace: "shop", Name: "g"}}}
			r.agent.announcer.AskInForce(q, func() {
				mu.Lock()
				defer mu.Unlock()
				answered[id] = true
			})
		}
		has := func(id uint64) bool {
			mu.Lock()
			defer mu.Unlock()
			return answered[id]
		}
		ask(1, "10.0.0.7")
		ask(2, "10.0.0.1")
		ask(3, "10.0.0.2")
		r.sleep(time.Second)
		if !has(1) || has(2) || has(3) {
			t.Errorf("answered are %v", answered)
		}
		r.change(slice("g", "10.0.0.7/32", "10.0.0.1/32"))
		if !has(2) || has(3) {
			t.Errorf("answered are %v", answered)
		}
		r.sleep(questionLife)
		r.change(slice("g", "10.0.0.2/32"))
		if has(3) {
			t.Error("a question of long ago is answered")
		}
		for id := range uint64(mostQuestions) {
			ask(10+id, "10.0.0.3")
		}
		ask(5, "10.0.0.2")
		r.sleep(time.Millisecond)
		if has(5) {
			t.Error("more questions wait than may")
		}
		r.sleep(2 * questionLife)
		ask(6, "10.0.0.2")
		r.sleep(time.Millisecond)
		if !has(6) {
			t.Error("a question is not answered after the others")
		}
	})
}

// A pod of which the agent learns by its status alone has started unknown, and is counted once.
func TestPodsThatAreNotAnnouncedAreCounted(t *testing.T) {
	unknown := func(r *running, reason string) float64 {
		return testutil.ToFloat64(r.agent.metrics.unknown.WithLabelValues(reason))
	}
	getsAddress := func(r *running, name, ip string) {
		r.Helper()
		waiting := pod(name, "")
		waiting.Status.PodIP, waiting.Status.PodIPs = "", nil
		r.add(waiting)
		i, err := r.pods.FakeInformerFor(r.Context(), waiting)
		if err != nil {
			r.Fatal(err)
		}
		i.Update(waiting, pod(name, ip))
		i.Update(pod(name, ip), pod(name, ip))
		r.sleep(0)
	}
	s := &fakeStream{answer: published(0, nil)}
	with(t, s, func(r *running) { // other was there before the agent
		getsAddress(r, "without", "10.0.0.1")
		r.hook("web", "10.0.0.2")
		r.starts("web", "10.0.0.2", 0)
		getsAddress(r, "web", "10.0.0.2")
		onHost := pod("host", "10.0.0.3")
		onHost.Spec.HostNetwork = true
		r.add(onHost)
		if n := unknown(r, "no_nri"); n != 1 || r.metric("kidoban_agent_unknown_pod_starts_total") != 1 {
			t.Errorf("without NRI %v pods are counted, want 1", n)
		}
	})
	run(t, nil, func(r *running) {
		getsAddress(r, "without", "10.0.0.1")
		r.hook("web", "10.0.0.2")
		getsAddress(r, "web", "10.0.0.2")
		if n := unknown(r, "no_stream"); n != 2 {
			t.Errorf("without the stream %v pods are counted, want 2", n)
		}
	})
}

// change has a watch report another version of an object.
func (r *running) change(obj client.Object) {
	r.Helper()
	i, err := r.namespace(obj.GetNamespace()).FakeInformerFor(r.Context(), obj)
	if err != nil {
		r.Fatal(err)
	}
	stripped := strip(obj, shared).(metav1.Object) // as the caches do
	i.Update(stripped, stripped)
	r.sleep(0)
}

func TestReportsOfWhatIsInForce(t *testing.T) {
	s := &fakeStream{}
	with(t, s, func(r *running) {
		state := func() (generation int64, reason string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			p := s.policies[streamclient.PolicyKey{Kind: stream.PolicyState_POLICY_ENDPOINT, Namespace: "shop", Name: "deny"}]
			return p.GetGeneration(), p.GetReason()
		}
		version := func(generation int64) *v1alpha1.PolicyEndpoint {
			pe := policyEndpoint("deny")
			pe.UID, pe.Generation = "deny", generation
			return pe
		}
		r.add(version(1))
		r.sleep(reportInterval)
		if g, reason := state(); g != 1 || reason != "" {
			t.Errorf("reported is generation %d, %s", g, reason)
		}
		r.kernel.fail("Apply", errFull, errFull, errFull)
		r.kernel.fail("Sync", errFull, errFull, errFull)
		r.add(version(2))
		r.sleep(2 * reportInterval)
		if g, reason := state(); g != 1 || reason == "" {
			t.Errorf("while it cannot be written, reported is generation %d, %s", g, reason)
		}
		r.sleep(20 * time.Second)
		if g, reason := state(); g != 2 || reason != "" {
			t.Errorf("reported is generation %d, %s", g, reason)
		}
		// Changes are reported together.
		s.mu.Lock()
		before := s.reports
		s.mu.Unlock()
		for i := range 100 {
			r.add(pod("other", address(i+100)))
			r.sleep(10 * time.Millisecond)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := s.reports - before; n > 12 {
			t.Errorf("%d reports in a second", n)
		}
	})
}

func TestInterfacesThatCannotBePolicedAreReported(t *testing.T) {
	s := &fakeStream{}
	with(t, s, func(r *running) {
		r.agent.state.update(r.Context(), func(now time.Time, n *node.Node) {
			n.SetInterfaces(now, node.Interfaces{
				Routed: map[uint32][]netip.Addr{5: {netip.MustParseAddr("10.0.0.9")}}, Namespaces: map[uint32]node.NetNS{5: 0},
			})
			n.SetUnseen(map[node.NetNS][]node.Link{0: {{Name: "net1", Kind: "macvlan"}}})
		})
		r.sleep(unseenReportInterval)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.unseen) != 1 || s.unseen[0].GetName() != "other" || s.unseen[0].GetInterface() != "net1" || s.unseen[0].GetKind() != "macvlan" {
			t.Errorf("reported are %v", s.unseen)
		}
	})
}
