package command

import (
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Names are printed without control characters, and an archive is written as it is.
func TestOnlyTextIsCleaned(t *testing.T) {
	streams, _, out, _ := genericiooptions.NewTestIOStreams()
	env := Env{IOStreams: streams}
	env.KeepPlain()
	const gzip = "\x1f\x8b\x08\x00\xff\x1b[2J"
	for _, test := range []struct {
		write func([]byte) (int, error)
		same  bool
	}{{env.Out.Write, false}, {env.Raw().Out.Write, true}} {
		out.Reset()
		if _, err := test.write([]byte(gzip)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); (got == gzip) != test.same {
			t.Errorf("%q", got)
		}
	}
}
