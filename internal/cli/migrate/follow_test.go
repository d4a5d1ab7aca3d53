package migrate

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kidoban/kidoban/internal/cli/agents"
)

// aCluster is one whose agents come and go. A stream is of the token that was new when it was opened.
type aCluster struct {
	mu    sync.Mutex
	nodes []string // that there are, with an agent each but for without
	// without an agent.
	without string
	good    *agents.Agents            // whose token is good; nil: that of any
	streams map[string]*io.PipeWriter // by node
}

func (c *aCluster) find(context.Context) (*agents.Agents, []corev1.Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := &agents.Agents{}
	var nodes []corev1.Node
	for _, n := range c.nodes {
		nodes = append(nodes, corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
		if n != c.without {
			a.Pods = append(a.Pods, corev1.Pod{Spec: corev1.PodSpec{NodeName: n}})
		}
	}
	if c.good != nil {
		c.good = a
	}
	return a, nodes, nil
}

func (c *aCluster) open(a *agents.Agents, _ context.Context, pod *corev1.Pod, _ string) (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.good != nil && c.good != a {
		return nil, errors.New("401 Unauthorized")
	}
	if node := pod.Spec.NodeName; node == c.without || !slices.Contains(c.nodes, node) {
		return nil, errors.New("no such pod")
	}
	r, w := io.Pipe()
	c.streams[pod.Spec.NodeName] = w
	return r, nil
}

func (c *aCluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// say an event on a node, when it is followed.
func (c *aCluster) say(t *testing.T, node string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c.mu.Lock()
		w := c.streams[node]
		c.mu.Unlock()
		if w != nil {
			if _, err := io.WriteString(w, `{"node": "`+node+`"}`+"\n"); err == nil {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("node %s is not followed", node)
			return
		}
	}
}

func (c *aCluster) cut(node string) {
	c.set(func() { _ = c.streams[node].CloseWithError(errors.New("cut")) })
}

func await(t *testing.T, events <-chan agentEvent, what string, is func(agentEvent) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case e := <-events:
			if is(e) {
				return
			}
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAgentsAreFollowedForDays(t *testing.T) {
	c := &aCluster{nodes: []string{"n1", "n2"}, streams: map[string]*io.PipeWriter{}}
	events := make(chan agentEvent)
	f := newFollower(c.find, events)
	f.open, f.every, f.pause = c.open, 5*time.Millisecond, wait.Backoff{Duration: time.Millisecond, Factor: 1, Steps: 1}
	first, _, _ := c.find(t.Context())
	f.follow(t.Context(), first)
	on := func(node string) func(agentEvent) bool { return func(e agentEvent) bool { return e.Node == node } }
	lost := func(what string) func(agentEvent) bool {
		return func(e agentEvent) bool { return strings.Contains(e.lost, what) }
	}
	said := func(node string) {
		t.Helper()
		go c.say(t, node)
		await(t, events, "an event of "+node, on(node))
	}
	said("n1")
	said("n2")

	// The token has expired when a stream is opened again.
	c.set(func() { c.good = &agents.Agents{} })
	c.cut("n1")
	await(t, events, "the cut", lost("cut"))
	said("n1")

	// A node comes.
	c.set(func() { c.nodes = append(c.nodes, "n3") })
	said("n3")

	// The agent of a node goes, and comes back.
	c.set(func() { c.without = "n2" })
	c.cut("n2")
	await(t, events, "a word of the agent that is gone", lost("node n2: its agent is gone"))
	await(t, events, "and again, as it does not come back", lost("node n2: its agent is gone"))
	c.set(func() { c.without = "" })
	said("n2")

	// A node goes: after that nothing is missing.
	c.set(func() { c.nodes = c.nodes[1:] })
	c.cut("n1")
	await(t, events, "a word of the node that is gone", lost("node n1: its agent is gone"))
	if f.follows("n1") || !f.follows("n2") || !f.follows("n3") {
		t.Error("not the nodes that there are")
	}
}

func (f *follower) follows(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.followed[node]
}
