package main

import (
	"flag"
	"strings"
	"testing"
)

func TestWhereFlowsAreSentOn(t *testing.T) {
	for args, want := range map[string]string{
		"": "",
		"--otlp-endpoint=http://collector:4318 --otlp-headers=a=b,c=d": "otlp",
		"--otlp-endpoint=http://collector:4317 --otlp-protocol=grpc":   "otlp",
		"--otlp-endpoint=https://collector --otlp-protocol=grpc":       "otlp",
		"--otlp-endpoint=http://collector:4317/p --otlp-protocol=grpc": "error: must not have a path",
		"--otlp-endpoint=http://collector:4317 --otlp-protocol=http":   "error: --otlp-protocol",
		"--flow-file=/f": "file",
		"--cloudwatch-log-group=g --flow-file=/f": "file cloudwatch",
		"--otlp-endpoint=collector:4318":          "error: --otlp-endpoint",
		"--otlp-headers=secret":                   "error: --otlp-headers",
		"--flow-file-max-size=-1":                 "error: --flow-file-max-size",
		"--flow-file-max-age=999999":              "error: --flow-file-max-size",
	} {
		var o onwardFlags
		fs := flag.NewFlagSet("observer", flag.ContinueOnError)
		o.bind(fs)
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		sinks, err := o.sinks("observer-0")
		var names []string
		for _, s := range sinks {
			names = append(names, s.Name())
		}
		if wanted, ok := strings.CutPrefix(want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), wanted) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: got %v, want an error with %q", args, err, wanted)
			}
		} else if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", args, got, err, want)
		}
	}
}
