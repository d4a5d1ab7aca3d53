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
	for _, name := range []string{"NODE_NAME", "POD_NAMESPACE", "NETWORK_POLICY_ENFORCING_MODE", "CLUSTER_NAME"} {
		t.Setenv(name, "")
	}
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	(&options{log: startup.LogOptions()}).bind(fs)
	flagdoc.Check(t, "../../docs/configuration.md", "agent", fs, *update)
}
