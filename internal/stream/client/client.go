package client

import (
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/replicas"
	"github.com/kidoban/kidoban/internal/stream"
)

// Handler receives the messages of the replicas. Its methods must not block.
type Handler interface {
	Published(*stream.Published)
	Confirmed(*stream.Confirmed)
	Refused(*stream.Refused)
	// AskInForce gets a question, and the function that answers it.
	AskInForce(question *stream.AskInForce, answer func())
}

// Options of a Client.
type Options struct {
	Replicas  replicas.Watch
	Authority replicas.Authority
	// TokenFile contains the agent's token.
	TokenFile string
	Log       logr.Logger
	Registry  prometheus.Registerer
}

// Client keeps a stream to each replica of the controller. Its methods may be called at the same time.
type Client struct {
	opts    Options
	metrics *metrics

	mu        sync.Mutex
	sandboxes map[string]sandbox // by UID
	policies  map[PolicyKey]*stream.PolicyState
	reported  bool // policies is known
	unseen    map[unseenKey]*stream.Unseen
	outboxes  map[*outbox]struct{}
	leaders   map[*outbox]struct{} // of replicas whose last message about it says that they lead
}

// PolicyKey names an object that a PolicyState is about.
type PolicyKey struct {
	Kind            stream.PolicyState_Kind
	Namespace, Name string
}

type sandbox struct {
	added *stream.SandboxAdded
	since time.Time
}

type unseenKey struct{ uid, name string }

// New returns a Client that connects when it runs.
func New(opts Options) *Client {
	return &Client{
		opts: opts, metrics: newMetrics(opts.Registry),
		sandboxes: map[string]sandbox{}, policies: map[PolicyKey]*stream.PolicyState{}, unseen: map[unseenKey]*stream.Unseen{},
		outboxes: map[*outbox]struct{}{}, leaders: map[*outbox]struct{}{},
	}
}

// announceFor is how long a sandbox is announced: until then the controller uses it instead of the pod's status.
const announceFor = 30 * time.Second

// AddSandbox announces a sandbox to all replicas, and for a while to those that are connected later.
func (c *Client) AddSandbox(s *stream.SandboxAdded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetSandboxes()
	c.sandboxes[s.GetUid()] = sandbox{added: s, since: time.Now()}
	c.each(func(o *outbox) { o.sandboxes[s.GetUid()] = struct{}{} })
}

// EndSandbox withdraws what was announced of a pod.
func (c *Client) EndSandbox(uid string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sandboxes, uid)
	c.each(func(o *outbox) { o.sandboxes[uid] = struct{}{} })
}

func (c *Client) forgetSandboxes() {
	for uid, s := range c.sandboxes {
		if time.Since(s.since) > announceFor {
			delete(c.sandboxes, uid)
		}
	}
}

// SetPolicies replaces the report of what is in force.
func (c *Client) SetPolicies(now map[PolicyKey]*stream.PolicyState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var changed []PolicyKey
	for key, p := range now {
		if before := c.policies[key]; before == nil || before.GetUid() != p.GetUid() || before.GetGeneration() != p.GetGeneration() ||
			before.GetReason() != p.GetReason() {
			changed = append(changed, key)
		}
	}
	for key := range c.policies {
		if now[key] == nil {
			changed = append(changed, key)
		}
	}
	c.policies, c.reported = now, true
	c.each(func(o *outbox) {
		for _, key := range changed {
			o.policies[key] = struct{}{}
		}
	})
}

// SetUnseen replaces the list of the interfaces that cannot be policed. Each is sent once to each replica.
func (c *Client) SetUnseen(now []*stream.Unseen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	unseen := map[unseenKey]*stream.Unseen{}
	var added []unseenKey
	for _, u := range now {
		key := unseenKey{u.GetUid(), u.GetInterface()}
		if unseen[key] = u; c.unseen[key] == nil {
			added = append(added, key)
		}
	}
	c.unseen = unseen
	c.each(func(o *outbox) {
		for _, key := range added {
			o.unseen[key] = struct{}{}
		}
	})
}

// HasLeader reports whether a replica that leads is connected.
func (c *Client) HasLeader() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.leaders) > 0
}

// each changes what is left to send to each replica, and wakes the senders. The caller holds mu.
func (c *Client) each(change func(*outbox)) {
	for o := range c.outboxes {
		change(o)
		o.wake()
	}
}
