package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/kidoban/kidoban/internal/flow"
)

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// answer waits for a question and answers it.
func answer(t *testing.T, s grpc.BidiStreamingClient[flow.PushRequest, flow.PushResponse], r *flow.NodeReport) {
	t.Helper()
	q, err := s.Recv()
	if err != nil || q.GetReport() == 0 || q.GetSequence() != 0 {
		t.Errorf("got %v, %v; want a question", q, err)
		return
	}
	r.Number = q.GetReport()
	if err := s.Send(&flow.PushRequest{Report: r}); err != nil {
		t.Error(err)
	}
}

func TestReports(t *testing.T) {
	f := newFixture(t)
	if _, err := f.server.Report(t.Context(), "n1"); err == nil {
		t.Error("a report of a node whose agent is not connected")
	}
	s := f.connect(agentClaims("n1").token())
	if err := push1(s, &flow.PushRequest{Generation: "g", Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		answer  *flow.NodeReport
		problem string
	}{
		"a report":    {answer: &flow.NodeReport{Content: zipped(t, []byte(`{"denied":3}`))}},
		"a problem":   {&flow.NodeReport{Problem: "too large" + strings.Repeat("x", 1000)}, "the agent has no report: too large"},
		"no gzip":     {&flow.NodeReport{Content: []byte("text that is no gzip")}, "gzip"},
		"a zip bomb":  {&flow.NodeReport{Content: zipped(t, make([]byte, maxReport+1))}, "more than"},
		"cut content": {&flow.NodeReport{Content: zipped(t, []byte("{}"))[:15]}, "unexpected EOF"},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer(t, s, tc.answer)
		}()
		got, err := f.server.Report(t.Context(), "n1")
		<-done
		switch {
		case tc.problem == "" && (err != nil || string(got) != `{"denied":3}`):
			t.Errorf("%s: %q, %v", name, got, err)
		case tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem) || len(err.Error()) > maxProblem+50):
			t.Errorf("%s: got error %v, want %q", name, err, tc.problem)
		}
	}
	// An answer that was not asked for, and one that comes twice, have no effect on the stream.
	if err := s.Send(&flow.PushRequest{Report: &flow.NodeReport{Number: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := push1(s, &flow.PushRequest{Generation: "g", Sequence: 2}); err != nil {
		t.Error(err)
	}
}

// An agent that does not answer, as those of earlier versions, holds up no caller and keeps pushing.
func TestAnAgentWithoutReports(t *testing.T) {
	f := newFixture(t)
	s := f.connect(agentClaims("n1").token())
	if err := push1(s, &flow.PushRequest{Generation: "g", Sequence: 1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.server.Report(ctx, "n1"); err == nil {
		t.Error("a report of an agent that has not answered")
	}
	if q, err := s.Recv(); err != nil || q.GetReport() == 0 {
		t.Fatalf("%v, %v", q, err)
	}
	if err := push1(s, &flow.PushRequest{Generation: "g", Sequence: 2}); err != nil {
		t.Error(err)
	}
}
