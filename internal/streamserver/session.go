package streamserver

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"github.com/kidoban/kidoban/internal/stream"
)

const (
	// Messages of one agent per second, and at once. Those beyond wait in the agent's own connection.
	messageRate, messageBurst = 200, 1000
	// maxQueued is the number of messages that wait for one agent.
	maxQueued = 256
	// sendTime is how long an agent may take to make room for a message.
	sendTime = 10 * time.Second
)

// Ending is why the server ended a stream.
type Ending string

// Endings.
const (
	EndExpired    Ending = "TokenExpired"
	EndPodDeleted Ending = "PodDeleted"
	EndReplaced   Ending = "Replaced" // by a newer stream of the node
	EndSlow       Ending = "SlowReader"
	EndShutdown   Ending = "Shutdown"
)

// Session is an agent's stream.
type Session struct {
	Identity
	// Version is the agent's, as it reports it.
	Version string

	conn    grpc.BidiStreamingServer[stream.AgentMessage, stream.ControllerMessage]
	queue   chan *stream.ControllerMessage
	limiter *rate.Limiter

	// receiving is held while a message is passed on, so that none is passed on after the end.
	receiving sync.Mutex

	mu     sync.Mutex // guards ending
	ending Ending
	ended  chan struct{}
}

// Send queues a message. It never blocks: it ends the stream of an agent whose queue is full.
func (s *Session) Send(m *stream.ControllerMessage) {
	select {
	case s.queue <- m:
	case <-s.ended:
	default:
		s.end(EndSlow)
	}
}

// Done is closed when the stream ends.
func (s *Session) Done() <-chan struct{} { return s.ended }

// end ends the stream, for the first reason that is given.
func (s *Session) end(why Ending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.ended:
	default:
		s.ending = why
		close(s.ended)
	}
}

// while calls do, unless the stream has ended.
func (s *Session) while(do func()) bool {
	s.receiving.Lock()
	defer s.receiving.Unlock()
	select {
	case <-s.ended:
		return false
	default:
		do()
		return true
	}
}

func (s *Session) why() Ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// send sends the queued messages until the stream ends.
func (s *Session) send() {
	slow := time.AfterFunc(sendTime, func() { s.end(EndSlow) })
	slow.Stop()
	defer slow.Stop()
	for {
		select {
		case <-s.ended:
			return
		case m := <-s.queue:
			slow.Reset(sendTime)
			err := s.conn.Send(m)
			slow.Stop()
			if err != nil {
				s.end("")
				return
			}
		}
	}
}
