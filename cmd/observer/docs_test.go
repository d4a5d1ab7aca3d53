package main

import (
	"flag"
	"testing"

	"github.com/kidoban/kidoban/internal/flagdoc"
	"github.com/kidoban/kidoban/internal/startup"
)

//go:generate go test -run TestFlagsAreDocumented . -update

var update = flag.Bool("update", false, "write docs/configuration.md")

func TestFlagsAreDocumented(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	fs := flag.NewFlagSet("observer", flag.ContinueOnError)
	(&options{log: startup.LogOptions()}).bind(fs)
	flagdoc.Check(t, "../../docs/configuration.md", "observer", fs, *update)
}
