package controller

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kidoban/kidoban/internal/stream"
)

// asked is an agent's stream.
type asked struct {
	questions []uint64
	done      chan struct{}
}

func (a *asked) Send(m *stream.ControllerMessage) {
	a.questions = append(a.questions, m.GetAskInForce().GetId())
}
func (a *asked) Done() <-chan struct{} { return a.done }

func agents(n int) (all []*asked, receivers []receiver) {
	for range n {
		a := &asked{done: make(chan struct{})}
		all, receivers = append(all, a), append(receivers, a)
	}
	return all, receivers
}

// outcome is what a pod's agent receives.
type outcome struct{ confirms, confirmed bool }

func (o *outcome) of(q *question) {
	q.publish(func(confirms bool) { o.confirms = confirms }, func() { o.confirmed = true })
}

func expectOutcome(t *testing.T, when string, got *outcome, confirms, confirmed bool) {
	t.Helper()
	if *got != (outcome{confirms, confirmed}) {
		t.Errorf("%s: %+v, want confirms %t, confirmed %t", when, *got, confirms, confirmed)
	}
}

func TestConfirmedOnceEachAgentHasAnswered(t *testing.T) {
	c := newConfirmations()
	all, receivers := agents(2)
	q := c.ask(receivers, &stream.AskInForce{})
	id := all[0].questions[0]
	var o outcome
	o.of(q)
	expectOutcome(t, "none has answered", &o, true, false)
	c.answered(all[0], id)
	c.answered(all[0], id)
	c.answered(&asked{}, id) // was not asked
	c.answered(all[1], id+1)
	expectOutcome(t, "one has answered", &o, true, false)
	c.answered(all[1], id)
	expectOutcome(t, "both have answered", &o, true, true)
	if len(c.questions) > 0 {
		t.Errorf("left are %v", c.questions)
	}
}

func TestAnswersBeforeTheWriteNeedNoConfirmation(t *testing.T) {
	c := newConfirmations()
	all, receivers := agents(1)
	q := c.ask(receivers, &stream.AskInForce{})
	c.answered(all[0], all[0].questions[0])
	var o outcome
	o.of(q)
	expectOutcome(t, "answered before", &o, false, false)

	o = outcome{}
	o.of(c.ask(nil, &stream.AskInForce{}))
	expectOutcome(t, "no other node", &o, false, false)
}

func TestAStreamThatEndsIsNotWaitedFor(t *testing.T) {
	c := newConfirmations()
	all, receivers := agents(3)
	close(all[2].done) // the question is too late for it
	q := c.ask(receivers, &stream.AskInForce{})
	var o outcome
	o.of(q)
	c.answered(all[0], all[0].questions[0])
	c.ended(all[1])
	expectOutcome(t, "the other has ended", &o, true, true)
	if len(all[2].questions)+len(c.questions)+len(c.slow) > 0 {
		t.Errorf("a stream that has ended was asked %v; left are %v", all[2].questions, c)
	}
}

// An agent that does not answer holds up the pods of one second, until it answers again.
func TestASlowAgentIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfirmations()
		all, receivers := agents(2)
		var first, second, third outcome
		first.of(c.ask(receivers, &stream.AskInForce{}))
		c.answered(all[0], all[0].questions[0])
		time.Sleep(answerTime)
		synctest.Wait()
		expectOutcome(t, "one did not answer", &first, true, false)

		second.of(c.ask(receivers, &stream.AskInForce{}))
		c.answered(all[0], all[0].questions[1])
		expectOutcome(t, "it is slow", &second, true, true)
		c.answered(all[1], all[1].questions[1])

		third.of(c.ask(receivers, &stream.AskInForce{}))
		c.answered(all[0], all[0].questions[2])
		expectOutcome(t, "it has answered in time", &third, true, false)
		c.answered(all[1], all[1].questions[2])
		expectOutcome(t, "and again", &third, true, true)
	})
}

func TestAGroupOfManyNodesIsConfirmedByAPart(t *testing.T) {
	c := newConfirmations()
	all, receivers := agents(3 * maxAsked)
	q := c.ask(receivers, &stream.AskInForce{})
	var o outcome
	o.of(q)
	n := 0
	for _, a := range all {
		for _, id := range a.questions {
			n++
			c.answered(a, id)
		}
	}
	expectOutcome(t, "all that were asked have answered", &o, true, true)
	if n != maxAsked {
		t.Errorf("%d agents were asked", n)
	}
}
