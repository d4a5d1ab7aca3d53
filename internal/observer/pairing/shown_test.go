package pairing

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

func TestShown(t *testing.T) {
	asked := time.Unix(1_000_000_000, 0)
	flow := func(last time.Duration) *observerapi.Flow {
		return &observerapi.Flow{
			First: asked.Add(-time.Minute), Last: asked.Add(last), Protocol: "TCP", Port: 80,
			Egress: &observerapi.Decision{Verdict: observerapi.Allowed},
		}
	}
	s := Shown{}
	s.Add(flow(-30*time.Second), asked)
	if !s.Contains(flow(-40*time.Second)) || s.Contains(flow(-20*time.Second)) {
		t.Error("a flow contains what began in its span, up to its last connection")
	}
	other := flow(-40 * time.Second)
	other.Ingress = &observerapi.Decision{Verdict: observerapi.Denied}
	if !s.Contains(other) {
		t.Error("the second end's decision may come later")
	}
	other.Egress = &observerapi.Decision{Verdict: observerapi.Denied}
	if s.Contains(other) {
		t.Error("another decision of the same end is another flow")
	}
	continues := flow(-40 * time.Second)
	continues.Continues = true
	if s.Contains(continues) {
		t.Error("packets of a forgotten connection are another flow than its connections")
	}
	old := flow(-Overlap)
	old.Port = 81
	s.Add(old, asked)
	if s.Contains(old) {
		t.Error("a flow that is too old to arrive again is remembered")
	}
	Shown(nil).Add(old, asked)
	if Shown(nil).Contains(old) {
		t.Error("nil remembers")
	}
}
