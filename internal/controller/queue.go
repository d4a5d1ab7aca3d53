package controller

import (
	"k8s.io/client-go/util/workqueue"
)

// newQueue returns the controller's queue.
func newQueue(name string, limiter workqueue.TypedRateLimiter[request]) queue {
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[request]{
		Name: name,
		DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[request]{
			Name:  name,
			Queue: workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[request]{Name: name, Queue: &fairQueue{}}),
		}),
	})
}

// fairQueue orders requests: the namespaces that cause them take turns, so that one with thousands of requests delays
// the others by one at a time. Statuses come when there is nothing else, because nothing enforces them, but at least
// once in statusTurn times, so that a storm of other requests does not hold them forever.
type fairQueue struct {
	specs, statuses turns
	sinceStatus     int
}

const statusTurn = 256

// Touch does nothing: a request that is added again keeps its place.
func (q *fairQueue) Touch(request) {}

// Push adds a request.
func (q *fairQueue) Push(r request) {
	if r.kind == status {
		q.statuses.push(r)
	} else {
		q.specs.push(r)
	}
}

// Len is the number of requests.
func (q *fairQueue) Len() int { return q.specs.count + q.statuses.count }

// Pop removes the next request.
func (q *fairQueue) Pop() request {
	q.sinceStatus++
	if q.specs.count == 0 || q.statuses.count > 0 && q.sinceStatus >= statusTurn {
		q.sinceStatus = 0
		return q.statuses.pop()
	}
	return q.specs.pop()
}

// turns are requests by the namespaces that cause them.
type turns struct {
	requests map[string][]request
	next     []string // namespaces with requests, in the order of their turns
	count    int
}

func (t *turns) push(r request) {
	cause := r.causedBy()
	if t.requests == nil {
		t.requests = map[string][]request{}
	}
	if len(t.requests[cause]) == 0 {
		t.next = append(t.next, cause)
	}
	t.requests[cause] = append(t.requests[cause], r)
	t.count++
}

func (t *turns) pop() request {
	cause := t.next[0]
	list := t.requests[cause]
	t.next, t.count = t.next[1:], t.count-1
	if len(list) > 1 {
		t.requests[cause] = list[1:]
		t.next = append(t.next, cause)
	} else {
		delete(t.requests, cause)
	}
	return list[0]
}
