package controller

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/stream"
)

const (
	// maxAsked is how many nodes are asked about one pod; see docs/decisions/0023-confirmed-by-the-other-nodes.md.
	maxAsked = 32
	// answerTime is how long an agent may take to answer. The controller still asks one that takes longer, and waits
	// for it again once it has answered in time.
	answerTime = time.Second
)

// confirmations ask agents whether announced addresses are in force on their nodes, and collect the answers.
type confirmations struct {
	mu        sync.Mutex // guards what follows, and all questions; no other lock is taken while it is held
	last      uint64     // id of a question
	questions map[uint64]*question
	slow      map[receiver]struct{} // agents that did not answer in time
}

// receiver is a stream to an agent.
type receiver interface {
	Send(*stream.ControllerMessage)
	// Done is closed when the stream has ended, before confirmations.ended is called.
	Done() <-chan struct{}
}

// question is about one announcement.
type question struct {
	of        *confirmations
	open      map[receiver]struct{} // that were asked and have not answered
	awaited   map[receiver]struct{} // of these, those that the pod waits for
	confirmed func()                // set when Published was sent
}

func newConfirmations() *confirmations {
	return &confirmations{questions: map[uint64]*question{}, slow: map[receiver]struct{}{}}
}

// ask sends a question to agents, or to maxAsked of them. Its id is set.
func (c *confirmations) ask(agents []receiver, m *stream.AskInForce) *question {
	if len(agents) > maxAsked {
		rand.Shuffle(len(agents), func(i, j int) { agents[i], agents[j] = agents[j], agents[i] })
		agents = agents[:maxAsked]
	}
	q := &question{of: c, open: map[receiver]struct{}{}, awaited: map[receiver]struct{}{}}
	if len(agents) == 0 {
		return q
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	id := c.last
	m.Id = id
	c.questions[id] = q
	for _, agent := range agents {
		select {
		case <-agent.Done():
			continue
		default:
		}
		q.open[agent] = struct{}{}
		if _, slow := c.slow[agent]; !slow {
			q.awaited[agent] = struct{}{}
		}
		agent.Send(&stream.ControllerMessage{Message: &stream.ControllerMessage_AskInForce{AskInForce: m}})
	}
	time.AfterFunc(answerTime, func() { c.expire(id) })
	return q
}

// expire ends a question.
func (c *confirmations) expire(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, ok := c.questions[id]
	if !ok {
		return
	}
	delete(c.questions, id)
	for agent := range q.open {
		c.slow[agent] = struct{}{}
	}
	unconfirmed.Add(float64(len(q.awaited)))
}

// answered takes an agent's answer. It ignores those to questions that the agent was not asked.
func (c *confirmations) answered(agent receiver, id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	q, ok := c.questions[id]
	if !ok {
		return
	}
	if _, asked := q.open[agent]; asked {
		delete(c.slow, agent)
		c.drop(id, q, agent)
	}
}

// ended forgets an agent's stream: no pod waits for it any more.
func (c *confirmations) ended(agent receiver) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.slow, agent)
	for id, q := range c.questions {
		c.drop(id, q, agent)
	}
}

// drop waits for an agent no longer. The caller holds mu.
func (c *confirmations) drop(id uint64, q *question, agent receiver) {
	_, awaited := q.awaited[agent]
	delete(q.open, agent)
	delete(q.awaited, agent)
	if awaited && len(q.awaited) == 0 && q.confirmed != nil {
		q.confirmed()
	}
	if len(q.open) == 0 {
		delete(c.questions, id)
	}
}

// publish calls published with whether confirmed will follow: it is called once all agents that the pod waits for have
// answered. Neither may block.
func (q *question) publish(published func(confirms bool), confirmed func()) {
	q.of.mu.Lock()
	defer q.of.mu.Unlock()
	confirms := len(q.awaited) > 0
	if published(confirms); confirms {
		q.confirmed = confirmed
	}
}

// ask asks the agents of other nodes that hold the groups of an announced pod whether they have its addresses in force.
func (a *Agents) ask(n *announcement, groups []*stream.Group) *question {
	a.c.reports.mu.Lock()
	nodes := a.c.reports.tracker.Holders(keysOf(groups), keysOf(n.left))
	a.c.reports.mu.Unlock()
	var agents []receiver
	for node := range nodes {
		if s := a.c.server.Session(node); s != nil && node != n.session.Node {
			agents = append(agents, s)
		}
	}
	m := &stream.AskInForce{Groups: groups, Left: n.left}
	for _, addr := range n.Addresses {
		m.Addresses = append(m.Addresses, addr.AsSlice())
	}
	return a.confirmations.ask(agents, m)
}

func keysOf(groups []*stream.Group) []policy.GroupKey {
	out := make([]policy.GroupKey, len(groups))
	for i, g := range groups {
		out[i] = policy.GroupKey{Namespace: g.GetNamespace(), Name: g.GetName()}
	}
	return out
}
