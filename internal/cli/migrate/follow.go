package migrate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
)

// follower follows the events of all agents. A comparison goes on for days: nodes come and go meanwhile, agents are replaced, tokens expire.
type follower struct {
	// find the agents that there are, with a new token for them, and the nodes, every so often.
	find  func(context.Context) (*agents.Agents, []corev1.Node, error)
	every time.Duration
	// open an answer of an agent, as agents.Open does.
	open  func(*agents.Agents, context.Context, *corev1.Pod, string) (io.ReadCloser, error)
	pause wait.Backoff

	events chan<- agentEvent

	mu       sync.Mutex
	agents   *agents.Agents
	followed map[string]bool // by node
	gone     map[string]bool // nodes whose agents went, and have not come back
}

func newFollower(find func(context.Context) (*agents.Agents, []corev1.Node, error), events chan<- agentEvent) *follower {
	return &follower{
		find: find, every: time.Minute, open: (*agents.Agents).Open, events: events, followed: map[string]bool{}, gone: map[string]bool{},
		pause: wait.Backoff{Duration: time.Second, Factor: 2, Cap: 30 * time.Second, Steps: 10},
	}
}

// follow these agents, and those that come, until the context ends.
func (f *follower) follow(ctx context.Context, a *agents.Agents) {
	since := time.Now()
	f.take(ctx, a, since)
	go func() {
		for {
			select {
			case <-time.After(f.every):
			case <-ctx.Done():
				return
			}
			now := time.Now()
			a, nodes, err := f.find(ctx)
			if err != nil {
				f.lost(ctx, fmt.Sprintf("agents that may have come: %v", err))
				continue
			}
			f.take(ctx, a, since)
			since = now
			for _, node := range f.without(nodes) {
				f.lost(ctx, agentGone(node))
			}
		}
	}()
}

// take these agents for those that there are. Of a new one events are wanted since a time.
func (f *follower) take(ctx context.Context, a *agents.Agents, since time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents = a
	for i := range a.Pods {
		if node := a.Pods[i].Spec.NodeName; node != "" && !f.followed[node] {
			f.followed[node] = true
			delete(f.gone, node)
			go f.followOne(ctx, node, since)
		}
	}
}

// on is the agent of a node. Where there is none, it is not followed any more.
func (f *follower) on(node string) (*agents.Agents, *corev1.Pod) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pod := f.agents.On(node)
	if pod == nil {
		delete(f.followed, node)
		f.gone[node] = true
	}
	return f.agents, pod
}

// without are those of the nodes whose agents went: what happens there is not seen, but for nodes that went too.
func (f *follower) without(nodes []corev1.Node) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range nodes {
		if f.gone[nodes[i].Name] {
			out = append(out, nodes[i].Name)
		}
	}
	return out
}

func agentGone(node string) string { return fmt.Sprintf("node %s: its agent is gone", node) }

// lost tells why something was not seen, and returns false when the context is done.
func (f *follower) lost(ctx context.Context, what string) bool {
	select {
	case f.events <- agentEvent{lost: what}:
		return true
	case <-ctx.Done():
		return false
	}
}

// followOne node's agent. A stream that breaks is taken up again where it broke.
func (f *follower) followOne(ctx context.Context, node string, since time.Time) {
	backoff := f.pause
	for {
		a, pod := f.on(node)
		if pod == nil {
			f.lost(ctx, agentGone(node))
			return
		}
		err := f.stream(ctx, a, pod, since)
		since = time.Now()
		if !f.lost(ctx, fmt.Sprintf("node %s: %v", node, cmp.Or(err, errors.New("the stream of events ended")))) {
			return
		}
		select {
		case <-time.After(backoff.Step()):
		case <-ctx.Done():
			return
		}
	}
}

func (f *follower) stream(ctx context.Context, a *agents.Agents, pod *corev1.Pod, since time.Time) error {
	// a duration: the node's clock need not be this one
	query := url.Values{agentapi.ParamFollow: {"true"}, agentapi.ParamSince: {time.Since(since).String()}}
	body, err := f.open(a, ctx, pod, agentapi.PathEvents+"?"+query.Encode())
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	for decoder := json.NewDecoder(body); ; {
		var e agentEvent
		if err := decoder.Decode(&e.StreamedEvent); err != nil {
			return err
		}
		select {
		case f.events <- e:
		case <-ctx.Done():
			return nil
		}
	}
}
