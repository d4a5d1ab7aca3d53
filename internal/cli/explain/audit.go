package explain

import (
	"fmt"
	"io"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// IfEnforced is what would become of a flow if audited policies were enforced.
type IfEnforced struct {
	Allowed bool    `json:"allowed"`
	Verdict Verdict `json:"verdict"`
	// Halves are those that would have another verdict.
	Halves []Half `json:"halves"`
}

// ifEnforced compares a flow with what it would be if audited policies were enforced.
func (f *Flow) ifEnforced(other Flow) {
	out := IfEnforced{Allowed: other.Allowed, Verdict: other.Verdict}
	for i := range other.Halves {
		if i >= len(f.Halves) || f.Halves[i].Verdict != other.Halves[i].Verdict {
			out.Halves = append(out.Halves, other.Halves[i])
		}
	}
	if len(out.Halves) > 0 {
		f.IfEnforced = &out
	}
}

func (a *IfEnforced) anonymous() *IfEnforced {
	if a == nil {
		return nil
	}
	out := *a
	out.Halves = anonymous(a.Halves)
	return &out
}

func writeIfEnforced(out io.Writer, p command.Paint, a *IfEnforced) {
	fmt.Fprintf(out, "\n  %s if audited policies were enforced, it would be %s:\n", p.Text(command.Yellow, "audit:"), a.Verdict)
	for i := range a.Halves {
		writeHalf(out, p, &a.Halves[i])
	}
}
