package startup

import (
	"flag"
	"strings"
	"testing"
)

func TestFlagsFromTheEnvironment(t *testing.T) {
	for _, tc := range []struct {
		name          string
		args, environ []string
		want          string // the flag's value, or part of the error
	}{
		{"default", nil, []string{"HOME=/"}, "standard"},
		{"environment", nil, []string{"KIDOBAN_ENFORCING_MODE=strict"}, "strict"},
		{"the command line wins", []string{"--enforcing-mode=guarded"}, []string{"KIDOBAN_ENFORCING_MODE=strict"}, "guarded"},
		{"empty is a value", nil, []string{"KIDOBAN_ENFORCING_MODE="}, ""},
		{"misspelt", nil, []string{"KIDOBAN_ENFORCE_MODE=strict"}, "KIDOBAN_ENFORCE_MODE"},
		{"a value apart from its flag", []string{"--audit", "false", "--enforcing-mode=strict"}, nil, `"false"`},
		{"bad value", nil, []string{"KIDOBAN_RATE=much"}, "KIDOBAN_RATE=much"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs := flag.NewFlagSet("test", flag.ContinueOnError)
			mode := fs.String("enforcing-mode", "standard", "")
			fs.Uint("rate", 1, "")
			fs.Bool("audit", false, "")
			err := ParseFlags(fs, tc.args, tc.environ)
			if err != nil {
				if tc.want == "" || !strings.Contains(err.Error(), tc.want) {
					t.Error(err)
				}
				return
			}
			if *mode != tc.want {
				t.Errorf("%q, want %q", *mode, tc.want)
			}
		})
	}
}
