package plan

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/inforce"
)

// life is one policy's status as the controller keeps it: it looks each second, and when something changes.
type life struct {
	t      *testing.T
	status v1alpha1.EndpointStatus
	times  InForceTimes
	now    time.Time
	writes int
	notes  int
}

func (l *life) see(generation int64, s inforce.State) {
	changed, _, note := SetInForce(&l.status, generation, s, &l.times, l.now)
	if changed {
		l.writes++
	}
	if note != "" {
		l.notes++
	}
}

func (l *life) expect(when, status, message string, writes int) {
	l.t.Helper()
	c := meta.FindStatusCondition(l.status.Conditions, v1alpha1.ConditionInForce)
	if c == nil || string(c.Status) != status || !strings.Contains(c.Message, message) {
		l.t.Errorf("%s: the condition is %+v, want %s and %q", when, c, status, message)
	}
	if l.writes != writes {
		l.t.Errorf("%s: %d writes, want %d", when, l.writes, writes)
	}
	l.writes = 0
}

func (l *life) seconds(n int, generation int64, s inforce.State) {
	for range n {
		l.now = l.now.Add(time.Second)
		l.see(generation, s)
	}
}

func TestInForceOf200Nodes(t *testing.T) {
	l := &life{t: t, now: time.Unix(1_800_000_000, 0)}
	since := l.now
	// A change of the policy, which the nodes report one after another within two seconds.
	for n := range 201 {
		l.see(1, inforce.State{Total: 200, InForce: n, Since: since, Missing: "n1"})
		l.now = l.now.Add(10 * time.Millisecond)
	}
	l.expect("quick nodes", "True", "all 200 nodes", 2)
	l.seconds(3600, 1, inforce.State{Total: 200, InForce: 200, Since: since})
	l.expect("an hour later", "True", "all 200 nodes", 0)

	// A pod comes to another node, which reports at once: one write, of the count.
	l.see(1, inforce.State{Total: 201, InForce: 200, Since: since, Missing: "n201"})
	l.see(1, inforce.State{Total: 201, InForce: 201, Since: since})
	l.expect("one more node", "True", "all 201 nodes", 1)

	// A node that does not put the next version in force.
	since = l.now
	for n := range 201 {
		l.see(2, inforce.State{Total: 201, InForce: n, Since: since, Missing: "slow"})
		l.now = l.now.Add(10 * time.Millisecond)
	}
	l.expect("at first", "False", "In force on 0 of 201", 1)
	l.seconds(3600, 2, inforce.State{Total: 201, InForce: 200, Since: since, Missing: "slow", Reason: "Waiting"})
	l.expect("an hour later", "False", "200 of 201 nodes that have its pods; not on node slow (Waiting)", 1)
	if l.notes != 1 {
		t.Errorf("%d Events", l.notes)
	}
	l.see(2, inforce.State{Total: 200, InForce: 200, Since: since})
	l.expect("the node is gone", "True", "all 200 nodes", 1)
}

func TestInForceWithoutPods(t *testing.T) {
	l := &life{t: t, now: time.Unix(1_800_000_000, 0)}
	l.see(1, inforce.State{Since: l.now})
	l.expect("no pods", "True", "all 0 nodes", 1)
}

// A policy whose pods are all on nodes without an agent is in force nowhere, and says why.
func TestInForceWithoutAgents(t *testing.T) {
	l := &life{t: t, now: time.Unix(1_800_000_000, 0)}
	without := inforce.State{Total: 2, Silent: 2, Since: l.now, Missing: "n1", Reason: "NoAgent"}
	l.see(1, without)
	l.expect("at first", "False", "on 0 of 2 nodes", 1)
	l.seconds(30, 1, without)
	l.expect("after a while", "False", "no agent has reported from these nodes, the first is n1", 1)
	if c := meta.FindStatusCondition(l.status.Conditions, v1alpha1.ConditionInForce); c.Reason != v1alpha1.ReasonNoAgent {
		t.Errorf("the reason is %s", c.Reason)
	}
	l.seconds(3600, 1, without)
	l.expect("an hour later", "False", "no agent", 0)
	if l.notes != 1 {
		t.Errorf("%d Events", l.notes)
	}
	without.InForce, without.Silent, without.Total = 2, 1, 3
	l.seconds(10, 1, without)
	l.expect("two agents have started", "False", "on 2 of 3 nodes that have its pods; not on node n1 (NoAgent)", 1)
}
