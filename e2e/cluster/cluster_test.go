package cluster

import (
	"slices"
	"testing"
)

func TestLines(t *testing.T) {
	for output, want := range map[string][]string{
		"":           nil,
		"\n":         {""},
		"one\ntwo\n": {"one", "two"},
		"one\ntwo":   {"one", "two"},
	} {
		if got := Lines(output); !slices.Equal(got, want) {
			t.Errorf("Lines(%q) = %q, want %q", output, got, want)
		}
	}
}
