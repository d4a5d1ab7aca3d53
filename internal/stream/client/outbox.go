package client

import (
	"github.com/kidoban/kidoban/internal/stream"
)

// outbox is what one replica has not been sent yet. It is as large as what there is to report, and no larger. Client.mu guards it.
type outbox struct {
	sandboxes map[string]struct{} // those that the Client does not have are ended
	answers   []uint64            // to questions
	unseen    map[unseenKey]struct{}
	policies  map[PolicyKey]struct{} // those that the Client does not have are gone
	full      bool                   // the full report was sent

	woken chan struct{} // capacity 1
}

const (
	// policiesPerMessage keeps a message far below stream.MaxMessageSize: names have at most 253 bytes.
	policiesPerMessage = 64
	// mostAnswers is how many answers may wait for a replica that does not read.
	mostAnswers = 1024
)

// open makes the outbox of a new connection, with everything that there is.
func (c *Client) open() *outbox {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetSandboxes()
	o := &outbox{
		sandboxes: map[string]struct{}{}, unseen: map[unseenKey]struct{}{}, policies: map[PolicyKey]struct{}{},
		woken: make(chan struct{}, 1),
	}
	for uid := range c.sandboxes {
		o.sandboxes[uid] = struct{}{}
	}
	for key := range c.unseen {
		o.unseen[key] = struct{}{}
	}
	c.outboxes[o] = struct{}{}
	o.wake()
	return o
}

func (c *Client) close(o *outbox) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.outboxes, o)
	delete(c.leaders, o)
	c.countStreams()
}

func (o *outbox) wake() {
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// answer answers a question.
func (c *Client) answer(o *outbox, id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(o.answers) < mostAnswers {
		o.answers = append(o.answers, id)
	}
	o.wake()
}

// take returns what an outbox has, and empties it. What holds up new pods comes first.
func (c *Client) take(o *outbox) (out []*stream.AgentMessage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range o.sandboxes {
		if s, ok := c.sandboxes[uid]; ok {
			out = append(out, &stream.AgentMessage{Message: &stream.AgentMessage_SandboxAdded{SandboxAdded: s.added}})
		} else {
			out = append(out, &stream.AgentMessage{Message: &stream.AgentMessage_SandboxEnded{SandboxEnded: &stream.SandboxEnded{Uid: uid}}})
		}
	}
	for _, id := range o.answers {
		out = append(out, &stream.AgentMessage{Message: &stream.AgentMessage_GroupsInForce{GroupsInForce: &stream.GroupsInForce{Id: id}}})
	}
	for key := range o.unseen {
		if u := c.unseen[key]; u != nil {
			out = append(out, &stream.AgentMessage{Message: &stream.AgentMessage_Unseen{Unseen: u}})
		}
	}
	clear(o.sandboxes)
	clear(o.unseen)
	o.answers = nil
	return append(out, c.takePolicies(o)...)
}

// takePolicies is take for the report of what is in force.
func (c *Client) takePolicies(o *outbox) (out []*stream.AgentMessage) {
	if !c.reported {
		return nil
	}
	full := !o.full
	var states []*stream.PolicyState
	if full {
		for _, p := range c.policies {
			states = append(states, p)
		}
	} else {
		for key := range o.policies {
			p := c.policies[key]
			if p == nil {
				p = &stream.PolicyState{Kind: key.Kind, Namespace: key.Namespace, Name: key.Name, Gone: true}
			}
			states = append(states, p)
		}
	}
	o.full = true
	clear(o.policies)
	for first := full; len(states) > 0 || first; first = false {
		n := min(len(states), policiesPerMessage)
		report := &stream.InForce{Policies: states[:n], Full: first, More: full && n < len(states)}
		out = append(out, &stream.AgentMessage{Message: &stream.AgentMessage_InForce{InForce: report}})
		states = states[n:]
	}
	return out
}
