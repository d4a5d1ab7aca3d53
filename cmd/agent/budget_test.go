package main

import (
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
)

func TestPolicyBudget(t *testing.T) {
	got := compiler.DefaultBudget
	if err := (policyBudget{&got}).Set("rows=5,ports=7"); err != nil {
		t.Fatal(err)
	}
	want := compiler.DefaultBudget
	want.Rows, want.Ports = 5, 7
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "rows", "rows=0", "rows=x", "doors=3"} {
		if (policyBudget{&got}).Set(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}
