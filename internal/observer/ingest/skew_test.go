package ingest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flow/flowtest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// recorded is a push that an earlier version of the agent made, as of now.
func recorded(t *testing.T, name string) *flow.PushRequest {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "flow", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	r := &flow.PushRequest{}
	if err := proto.Unmarshal(text, r); err != nil {
		t.Fatal(err)
	}
	by := time.Now().UnixMilli() - r.Sent
	r.Sent += by
	for _, record := range r.Records {
		record.First += by
		record.Last += by
	}
	for _, l := range r.Losses {
		l.First += by
		l.Last += by
	}
	return r
}

// Pushes of the versions before are stored, and a later version's push is stored as if it had no fields that this version does not have.
func TestPushesOfOtherVersions(t *testing.T) {
	for name, want := range map[string]struct {
		flows int
		first observerapi.Verdict
	}{"push-first.bin": {2, observerapi.Allowed}, "push-previous.bin": {3, observerapi.WouldBeDeny}} {
		for version, change := range map[string]func(proto.Message){"as recorded": func(proto.Message) {}, "with fields of a later version": flowtest.AddUnknown} {
			t.Run(name+" "+version, func(t *testing.T) {
				f, push := newFixture(t), recorded(t, name)
				change(push)
				s := f.connect(agentClaims("n1").token())
				later := &flow.PushRequest{}
				flowtest.AddUnknown(later)
				if err := s.Send(later); err != nil { // it is ignored, and not confirmed
					t.Fatal(err)
				}
				if err := push1(s, push); err != nil {
					t.Fatal(err)
				}
				byPort := map[uint16]*observerapi.Flow{}
				for _, f := range f.flows() {
					byPort[f.Port] = f
				}
				web, idle := byPort[5432], byPort[8080]
				if len(byPort) != want.flows || web == nil || web.Source.Pod != "web" || web.Connections != 3 || web.Verdict != want.first ||
					idle == nil || idle.Destination.Pod != "idle" || idle.Verdict != observerapi.Denied || idle.Egress.IsolatedBy[0].Name != "web" {
					t.Errorf("%+v and %+v of %d flows", web, idle, len(byPort))
				}
				losses, err := f.store.Losses(t.Context(), begin, time.Now().Add(time.Hour))
				if err != nil || len(losses) != 1 || losses[0].Reason != "queue" || losses[0].Packets != 7 {
					t.Errorf("losses %+v, %v", losses, err)
				}
			})
		}
	}
}
