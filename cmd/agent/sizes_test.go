package main

import (
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane"
)

func TestMapSizes(t *testing.T) {
	for value, want := range map[string]dataplane.Sizes{
		"addresses=7":        {Addresses: 7},
		"rows=8,networks=90": {Rows: 8, Networks: 90},
	} {
		var got dataplane.Sizes
		if err := (mapSizes{&got}).Set(value); err != nil || got != want {
			t.Errorf("%s: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "addresses", "addresses=0", "addresses=-1", "addresses=9999999999", "address=1", "rows=1,,"} {
		if (mapSizes{&dataplane.Sizes{}}).Set(value) == nil {
			t.Errorf("%q is taken", value)
		}
	}
}
