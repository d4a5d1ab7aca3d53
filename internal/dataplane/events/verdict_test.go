package events_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Every value of the program's enums has the same name in Go, and Go has no other.
func TestVerdictsAndReasonsAreThoseOfTheProgram(t *testing.T) {
	spec, err := bpf.LoadFilter()
	if err != nil {
		t.Fatal(err)
	}
	for name, inGo := range map[string]struct {
		prefix string
		number int
		of     func(uint64) fmt.Stringer
	}{
		"verdict": {"VERDICT_", events.Verdicts, func(v uint64) fmt.Stringer { return events.Verdict(v) }},
		"reason":  {"REASON_", events.Reasons, func(v uint64) fmt.Stringer { return events.Reason(v) }},
	} {
		var enum *btf.Enum
		if err := spec.Types.TypeByName(name, &enum); err != nil {
			t.Fatal(err)
		}
		if len(enum.Values) != inGo.number+1 {
			t.Errorf("enum %s has %d values, Go has %d", name, len(enum.Values)-1, inGo.number)
		}
		for i, v := range enum.Values[:len(enum.Values)-1] { // the last is their number
			if v.Value != uint64(i) {
				t.Errorf("%s is %d, want %d: user space counts from 0", v.Name, v.Value, i)
			}
			// VERDICT_AUDIT is AuditDeny, as metrics and the flow log have it.
			want := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(v.Name, inGo.prefix)), "_", "")
			if got := strings.ToLower(inGo.of(v.Value).String()); got != want && got != want+"deny" {
				t.Errorf("%s is %s in Go", v.Name, got)
			}
		}
	}
}

func TestAValueOfANewerProgramHasItsNumberAsName(t *testing.T) {
	if got := events.Reason(200).String(); got != "200" {
		t.Errorf("Reason(200) is %q", got)
	}
}
