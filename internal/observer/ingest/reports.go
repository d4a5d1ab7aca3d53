package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/kidoban/kidoban/internal/flow"
)

const (
	// reportTime is how long an agent may take for a report.
	reportTime = 5 * time.Second
	// maxReport is the size of the largest report, uncompressed.
	maxReport = 8 << 20
	// maxAsking is how many questions to one agent are being sent.
	maxAsking = 8
	// maxProblem is the length of the longest reason for which an agent has no report.
	maxProblem = 256
)

// questions asks one agent. It also serialises all that is sent on the agent's stream.
type questions struct {
	conn    grpc.BidiStreamingServer[flow.PushRequest, flow.PushResponse]
	sending sync.Mutex
	asking  chan struct{} // capacity maxAsking

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan<- *flow.NodeReport
}

func newQuestions(conn grpc.BidiStreamingServer[flow.PushRequest, flow.PushResponse]) questions {
	return questions{conn: conn, asking: make(chan struct{}, maxAsking), waiting: map[uint64]chan<- *flow.NodeReport{}}
}

// send sends a message to the agent.
func (q *questions) send(m *flow.PushResponse) error {
	q.sending.Lock()
	defer q.sending.Unlock()
	return q.conn.Send(m)
}

// ask sends a question. An agent that reads nothing blocks a few of them until its stream ends, and no caller.
func (q *questions) ask() (number uint64, answer <-chan *flow.NodeReport, err error) {
	select {
	case q.asking <- struct{}{}:
	default:
		return 0, nil, errors.New("too many questions to the agent at once")
	}
	arrives := make(chan *flow.NodeReport, 1)
	q.mu.Lock()
	q.last++
	number = q.last
	q.waiting[number] = arrives
	q.mu.Unlock()
	go func() {
		_ = q.send(&flow.PushResponse{Report: number}) // an error ends the stream
		<-q.asking
	}()
	return number, arrives, nil
}

// forget ends the wait for an answer.
func (q *questions) forget(number uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.waiting, number)
}

// answered passes an answer to the caller that waits for it. One that is too late, or that answers no question, has no effect.
func (q *questions) answered(r *flow.NodeReport) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if arrives := q.waiting[r.GetNumber()]; arrives != nil {
		delete(q.waiting, r.GetNumber())
		arrives <- r
	}
}

// Report asks the agent of a node for its report: an agentapi.NodeReport as JSON. Its content is the agent's and is not checked.
func (s *Server) Report(ctx context.Context, node string) ([]byte, error) {
	s.mu.Lock()
	a := s.agents[node]
	s.mu.Unlock()
	if a == nil {
		return nil, errors.New("the agent is not connected to this replica of the observer")
	}
	number, answer, err := a.questions.ask()
	if err != nil {
		return nil, err
	}
	defer a.questions.forget(number)
	ctx, cancel := context.WithTimeout(ctx, reportTime)
	defer cancel()
	select {
	case r := <-answer:
		if p := r.GetProblem(); p != "" {
			return nil, fmt.Errorf("the agent has no report: %.*s", maxProblem, p)
		}
		return unzip(r.GetContent())
	case <-ctx.Done():
		return nil, fmt.Errorf("the agent did not answer the observer within %s, as those of earlier versions do not", reportTime)
	}
}

func unzip(content []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("the agent's report: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, maxReport+1))
	if err != nil {
		return nil, fmt.Errorf("the agent's report: %w", err)
	}
	if len(out) > maxReport {
		return nil, fmt.Errorf("the agent's report has more than %d bytes", maxReport)
	}
	return out, nil
}
