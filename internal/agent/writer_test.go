package agent

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

var (
	errKernel = errors.New("the kernel fails")
	errFull   = &dataplane.MapFullError{Map: "networks", Max: 10}
)

func TestTakeOver(t *testing.T) {
	for _, tc := range []struct {
		name    string
		prepare func(*fakeKernel)
		ends    string // the error that the Agent ends with; empty: it runs
		ready   bool
	}{
		{"on a new node", func(*fakeKernel) {}, "", true},
		{"beside an earlier agent", func(k *fakeKernel) { k.others = true }, "", true},
		{"the maps cannot be filled, and an earlier agent's policies are in force",
			func(k *fakeKernel) { k.others = true; k.fail("Sync", errKernel) }, "the kernel fails", false},
		{"the maps are too small, and an earlier agent's policies are in force",
			func(k *fakeKernel) { k.others = true; k.fail("Sync", errFull, errFull, errFull, errFull, errFull) }, "", false},
		{"the maps cannot be filled, and nothing is in force", func(k *fakeKernel) { k.fail("Sync", errFull, errFull, errFull, errFull, errFull) }, "", false},
		{"it is unknown whether there is an earlier agent", func(k *fakeKernel) { k.fail("Alone", errKernel) }, "the kernel fails", false},
		{"the program cannot be attached", func(k *fakeKernel) { k.fail("Attach", errKernel) }, "the kernel fails", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run(t, tc.prepare, func(r *running) {
				select {
				case err := <-r.ended:
					if tc.ends == "" || err == nil || !strings.Contains(err.Error(), tc.ends) {
						t.Errorf("the agent ends with %v", err)
					}
					if r.kernel.attached {
						t.Error("it is attached")
					}
				default:
					if tc.ends != "" || !r.kernel.attached {
						t.Errorf("the agent runs, attached: %v", r.kernel.attached)
					}
				}
				if err := r.ready(); (err == nil) != tc.ready {
					t.Errorf("ready: %v", err)
				}
			})
		})
	}
}

// A node whose maps cannot be filled at the start comes right as soon as they can.
func TestAStartThatFailsClosed(t *testing.T) {
	prepare := func(k *fakeKernel) { k.fail("Sync", errFull, errFull, errFull) }
	run(t, prepare, func(r *running) {
		r.sleep(5 * time.Second)
		if r.kernel.called("FailClosed") != 3 {
			t.Errorf("failed closed %d times", r.kernel.called("FailClosed"))
		}
		if err := r.ready(); err != nil {
			t.Errorf("after the retries: %v", err)
		}
		if r.logged("Cannot write the kernel's maps") != 1 || r.logged("Policies are in force again") != 1 {
			t.Errorf("log: %v", r.log)
		}
	})
}

// Also beside an earlier agent, a node with maps that are too small isolates the pods of a policy whose groups never arrive.
func TestAFullMapAndGroupsThatNeverArrive(t *testing.T) {
	prepare := func(k *fakeKernel) { k.others = true; k.fail("Sync", slices.Repeat([]error{errFull}, 1000)...) }
	run(t, prepare, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.add(policyEndpoint("waits", v1alpha1.Peer{Group: &v1alpha1.GroupReference{Name: "never"}}))
		r.sleep(node.GroupPatience + collectInterval)
		if set := r.kernel.set("10.0.0.1", policy.Ingress); set != dataplane.DenyAll {
			t.Errorf("the pod has set %d", set)
		}
		select {
		case err := <-r.ended:
			t.Errorf("the agent ends with %v", err)
		default:
		}
	})
}

// A write that fails is repeated with all entries at once, which makes room.
func TestAFailedWriteIsRepeatedWithAllEntries(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		syncs := r.kernel.called("Sync")
		r.kernel.fail("Apply", errFull)
		r.add(policyEndpoint("deny"))
		if !r.isolated("10.0.0.1") || r.kernel.called("Sync") != syncs+1 {
			t.Errorf("isolated: %v after %d full writes", r.isolated("10.0.0.1"), r.kernel.called("Sync")-syncs)
		}
		if err := r.ready(); err != nil {
			t.Error(err)
		}
		if n := r.metric("kidoban_agent_programming_failures_total"); n != 1 {
			t.Errorf("%v failures are counted", n)
		}
		if n := r.metric("kidoban_agent_drift_entries_total"); n != 0 {
			t.Errorf("%v entries are counted as drift", n)
		}
	})
}

// While the maps cannot be written, pods are isolated, the pauses between retries grow, and changes go on being tried.
func TestFailuresThatGoOn(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		many := make([]error, 1000)
		for i := range many {
			many[i] = errFull
		}
		r.kernel.fail("Apply", errFull)
		r.kernel.fail("Sync", many...)
		r.add(policyEndpoint("deny"))
		if r.kernel.set("10.0.0.1", policy.Ingress) != dataplane.DenyAll || testutil.ToFloat64(r.agent.metrics.failClosed) != 1 {
			t.Errorf("the pod has set %d", r.kernel.set("10.0.0.1", policy.Ingress))
		}
		if err := r.ready(); !errors.Is(err, errFull) {
			t.Errorf("ready: %v", err)
		}
		if pods := r.agent.Pods(); pods[0].State != "Pending" {
			t.Errorf("the API reports %+v", pods[0])
		}
		applies := r.kernel.called("Apply")
		tries := r.kernel.called("Sync")
		r.sleep(25 * time.Second) // 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8 s apart
		if n := r.kernel.called("Sync") - tries; n < 5 || n > 9 {
			t.Errorf("%d retries in 25 s", n)
		}
		tries = r.kernel.called("Sync")
		r.add(policyEndpoint("another"))
		if r.kernel.called("Sync") != tries+1 || r.kernel.called("Apply") != applies {
			t.Errorf("a change is written %d times in full, %d times alone", r.kernel.called("Sync")-tries, r.kernel.called("Apply")-applies)
		}
		if n := r.logged("Cannot write the kernel's maps"); n != 1 {
			t.Errorf("%d lines for one failure", n)
		}
		r.kernel.mu.Lock()
		r.kernel.failures["Sync"] = nil
		r.kernel.mu.Unlock()
		r.sleep(31 * time.Second)
		if err := r.ready(); err != nil || !r.isolated("10.0.0.1") || r.kernel.set("10.0.0.1", policy.Ingress) == dataplane.DenyAll {
			t.Errorf("afterwards: %v", err)
		}
		if n := testutil.ToFloat64(r.agent.metrics.failClosed); n != 0 {
			t.Errorf("%v addresses are counted as isolated", n)
		}
	})
}

// What another process changes in the maps is repaired and counted.
func TestDriftIsRepairedAndCounted(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.kernel.mu.Lock()
		r.kernel.maps.Pods[netip.MustParseAddr("10.0.0.1")] = compiler.Pod{}
		r.kernel.maps.Pods[netip.MustParseAddr("10.0.0.9")] = compiler.Pod{}
		r.kernel.mu.Unlock()
		r.sleep(time.Minute)
		if !r.isolated("10.0.0.1") || r.metric("kidoban_agent_drift_entries_total") != 2 || r.logged("differed from the policies") != 1 {
			t.Errorf("isolated %v, counted %v, log %v", r.isolated("10.0.0.1"), r.metric("kidoban_agent_drift_entries_total"), r.log)
		}
	})
}

// A full comparison takes long. Changes are written meanwhile, and are not drift.
func TestChangesAreWrittenDuringAComparison(t *testing.T) {
	run(t, func(k *fakeKernel) { k.chunk = 100 * time.Millisecond }, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.kernel.mu.Lock()
		r.kernel.chunks = 300
		r.kernel.mu.Unlock()
		r.sleep(65 * time.Second) // into the comparison
		if n := r.kernel.called("Sync"); n != 1 {
			t.Fatalf("%d comparisons are over", n)
		}
		r.add(policyEndpoint("deny"))
		r.sleep(150 * time.Millisecond)
		if !r.isolated("10.0.0.1") {
			t.Error("the change waits for the comparison")
		}
		r.kernel.fail("Apply", errFull) // in the middle of the comparison
		r.add(policyEndpoint("another"))
		r.sleep(time.Minute)
		if err := r.ready(); err != nil {
			t.Error(err)
		}
		if n := r.metric("kidoban_agent_drift_entries_total"); n != 0 {
			t.Errorf("%v entries are counted as drift", n)
		}
	})
}

// Nothing but the writer waits for the kernel.
func TestNothingElseWaitsForTheKernel(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.kernel.mu.Lock()
		r.kernel.applyTakes = time.Hour
		r.kernel.mu.Unlock()
		r.add(policyEndpoint("deny"))
		begin := time.Now()
		r.add(pod("db", "10.0.0.2"))
		r.add(policyEndpoint("another"))
		if pods, policies := r.agent.Pods(), r.agent.Policies(); len(pods) != 2 || len(policies) != 2 {
			t.Errorf("the API reports %v, %v", pods, policies)
		}
		if _, ok := r.agent.Names().Pod(netip.MustParseAddr("10.0.0.2"), time.Now()); !ok {
			t.Error("the flow log has no name for the pod")
		}
		r.metric("kidoban_agent_rule_hits_total")
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %v", took)
		}
		r.kernel.mu.Lock()
		r.kernel.applyTakes = 0
		r.kernel.mu.Unlock()
		r.sleep(2 * time.Hour)
	})
}

func TestTheProgramIsAttachedAgain(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("deny"))
		r.sleep(time.Second)
		r.kernel.mu.Lock()
		r.kernel.detached = 1
		r.kernel.flows = []conntrack.Flow{flow("10.0.0.9", "10.0.0.1")} // opened meanwhile
		r.kernel.mu.Unlock()
		r.sleep(collectInterval + time.Second)
		if n := len(r.kernel.live()); n != 0 || r.metric("kidoban_agent_drift_entries_total") != 1 || r.ready() != nil {
			t.Errorf("%d flows are left, counted %v, %v", n, r.metric("kidoban_agent_drift_entries_total"), r.ready())
		}
	})
}

// Where the program cannot be attached again the maps are still written.
func TestHealingFails(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.kernel.mu.Lock()
		for range 100 {
			r.kernel.failures["Heal"] = append(r.kernel.failures["Heal"], errKernel)
		}
		r.kernel.mu.Unlock()
		r.sleep(collectInterval)
		r.add(policyEndpoint("deny"))
		if !r.isolated("10.0.0.1") || !errors.Is(r.ready(), errKernel) {
			t.Errorf("isolated %v, ready: %v", r.isolated("10.0.0.1"), r.ready())
		}
		if waited := r.hook("db", "10.0.0.2"); waited != hookTimeout {
			t.Errorf("a pod starts after %v, while packets pass unchecked", waited)
		}
		r.kernel.mu.Lock()
		r.kernel.failures["Heal"] = nil
		r.kernel.mu.Unlock()
		r.sleep(30 * time.Second)
		if err := r.ready(); err != nil {
			t.Error(err)
		}
	})
}

func TestALaterAgentTakesOver(t *testing.T) {
	run(t, nil, func(r *running) {
		r.kernel.fail("Heal", dataplane.ErrSuperseded)
		r.sleep(collectInterval + time.Second)
		select {
		case err := <-r.ended:
			if !errors.Is(err, dataplane.ErrSuperseded) {
				t.Errorf("the agent ends with %v", err)
			}
		default:
			t.Error("the agent runs on")
		}
	})
}

// What is unused leaves the maps after some time.
func TestUnusedEntriesAreRemoved(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(time.Second)
		r.add(policyEndpoint("first", peer("10.0.0.2/32")))
		i, err := r.namespace("shop").FakeInformerFor(t.Context(), policyEndpoint("first"))
		if err != nil {
			t.Fatal(err)
		}
		rows := len(r.kernel.maps.Rows)
		i.Delete(policy.ReadEndpoint(policyEndpoint("first"), shared))
		r.sleep(5 * collectInterval)
		if rows == 0 || len(r.kernel.maps.Rows) != 0 {
			t.Errorf("%d rows, then %d", rows, len(r.kernel.maps.Rows))
		}
	})
}

func TestWarnings(t *testing.T) {
	run(t, nil, func(r *running) {
		set := func(w ...inspect.Warning) {
			r.kernel.mu.Lock()
			r.kernel.warnings = w
			r.kernel.mu.Unlock()
			r.sleep(2 * time.Minute)
		}
		set("a bridge")
		if r.metric("kidoban_agent_warnings") != 1 || r.logged("may bypass enforcement") != 1 {
			t.Errorf("log %v", r.log)
		}
		set()
		if r.metric("kidoban_agent_warnings") != 0 || r.logged("A warning is over") != 1 {
			t.Errorf("log %v", r.log)
		}
	})
}

func flow(from, to string) conntrack.Flow {
	f := conntrack.Flow{Protocol: policy.TCP}
	f.Original.Source, f.Reply.Source = netip.AddrPortFrom(netip.MustParseAddr(from), 40000), netip.AddrPortFrom(netip.MustParseAddr(to), 80)
	return f
}

func TestAFlowIsCutOnceTheKernelDeniesIt(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(2 * time.Second)
		r.kernel.mu.Lock()
		r.kernel.flows = []conntrack.Flow{flow("10.0.0.9", "10.0.0.1"), flow("10.0.0.2", "10.0.0.1")}
		r.kernel.applyTakes = time.Minute
		r.kernel.mu.Unlock()
		r.add(policyEndpoint("allow", peer("10.0.0.2/32")))
		r.sleep(30 * time.Second)
		if len(r.kernel.live()) != 2 {
			t.Error("a flow is cut that the kernel still allows")
		}
		r.sleep(31 * time.Second)
		if len(r.kernel.live()) != 1 || r.metric("kidoban_agent_cut_flows_total") != 1 {
			t.Errorf("left are %v", r.kernel.live())
		}
		r.kernel.mu.Lock()
		r.kernel.applyTakes = 0
		r.kernel.mu.Unlock()
		r.sleep(2 * time.Minute)
	})
}

// TCP and SCTP stay cut for as long as conntrack would have kept them: their servers' keepalives may be hours apart.
func TestFlowsStayCutForAsLongAsConntrackKeepsThem(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{24 * time.Hour: 24 * time.Hour, time.Minute: leastHold} {
		run(t, nil, func(r *running) {
			r.kernel.mu.Lock()
			r.kernel.timeout = timeout
			for _, p := range []policy.Protocol{policy.TCP, policy.SCTP, policy.UDP} {
				f := flow("10.0.0.9", "10.0.0.1")
				f.Protocol = p
				r.kernel.flows = append(r.kernel.flows, f)
			}
			r.kernel.mu.Unlock()
			r.add(pod("web", "10.0.0.1"))
			r.add(policyEndpoint("deny"))
			r.sleep(time.Minute)
			r.kernel.mu.Lock()
			defer r.kernel.mu.Unlock()
			if h := r.kernel.holds; h[policy.TCP] != want || h[policy.SCTP] != want || h[policy.UDP] != holdOffOther {
				t.Errorf("with a timeout of %v flows are held off for %v", timeout, h)
			}
		})
	}
}

// A later agent judges: what this one cuts would not be held off.
func TestAnAgentThatIsReplacedCutsNothing(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(2 * time.Second)
		r.kernel.mu.Lock()
		r.kernel.flows = []conntrack.Flow{flow("10.0.0.9", "10.0.0.1")}
		r.kernel.mu.Unlock()
		r.kernel.fail("Cut", dataplane.ErrSuperseded)
		r.add(policyEndpoint("deny"))
		r.sleep(2 * sweepRetry)
		if r.kernel.called("Cut") > 2 || len(r.kernel.live()) != 1 || r.logged("Cannot cut flows") != 0 {
			t.Errorf("after %d calls these flows are left: %v, log %v", r.kernel.called("Cut"), r.kernel.live(), r.log)
		}
	})
}

// A packet that was decided just before the change makes its entry just after the first look, and conntrack may be busy.
func TestFlowsAreLookedAtAgain(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.sleep(2 * time.Second)
		appear := func() {
			r.kernel.mu.Lock()
			defer r.kernel.mu.Unlock()
			r.kernel.flows = []conntrack.Flow{flow("10.0.0.9", "10.0.0.1")}
		}
		r.add(policyEndpoint("deny"))
		synctest.Wait()
		appear()
		r.sleep(time.Second)
		if len(r.kernel.live()) != 0 {
			t.Error("there is no second look")
		}
		for _, method := range []string{"Flows", "Cut", "NodeAddresses"} {
			appear()
			r.kernel.fail(method, errKernel, errKernel)
			r.add(policyEndpoint("because of " + method))
			r.sleep(3 * sweepRetry)
			if len(r.kernel.live()) != 0 {
				t.Errorf("after a failure of %s the flow is left", method)
			}
		}
	})
}
func peer(cidr v1alpha1.CIDR) v1alpha1.Peer { return v1alpha1.Peer{CIDR: cidr} }
