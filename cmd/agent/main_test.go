package main

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/sink"
	"github.com/kidoban/kidoban/internal/startup"
)

func TestEventModes(t *testing.T) {
	for value, want := range map[string]dataplane.EventMode{
		"off": dataplane.EventsOff, "false": dataplane.EventsOff, "denied": dataplane.EventsDenied,
		"all": dataplane.EventsAll, "true": dataplane.EventsAll,
	} {
		var m eventMode
		if err := m.Set(value); err != nil || m != eventMode(want) {
			t.Errorf("%s: %v, %v", value, m, err)
		}
	}
	var m eventMode
	if m.Set("some") == nil {
		t.Error("some is a mode")
	}
}

func TestFlagsThatNoAgentCanRunWith(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string // part of the error; empty: none
	}{
		{"", ""},
		{"--check-interval=1s", ""},
		{"--check-interval=0", "--check-interval"},
		{"--check-interval=999ms", "--check-interval"},
		{"--check-interval=-1m", "--check-interval"},
		{"--node-name=", "--node-name"},
		{"--namespace=", "--namespace"},
	} {
		t.Run(tc.args, func(t *testing.T) {
			o := options{log: startup.LogOptions()}
			fs := flag.NewFlagSet("agent", flag.ContinueOnError)
			o.bind(fs)
			if err := fs.Parse(append([]string{"--node-name=n", "--namespace=n"}, strings.Fields(tc.args)...)); err != nil {
				t.Fatal(err)
			}
			err := o.check()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestSinks(t *testing.T) {
	denied := eventMode(dataplane.EventsDenied)
	for _, tc := range []struct {
		name string
		o    eventLog
		want string // sinks, or part of the error
	}{
		{"none", eventLog{mode: denied, format: "text"}, ""},
		{"off", eventLog{format: "text", stdout: true}, ""},
		{"all", eventLog{mode: denied, format: "json", stdout: true, cloudWatch: true, clusterName: "c", file: sink.FileOptions{Path: "/f"}}, "file stdout cloudwatch"},
		{"no cluster", eventLog{mode: denied, format: "text", cloudWatch: true}, "--cluster-name"},
		{"bad format", eventLog{mode: denied, format: "xml"}, "--event-log-format"},
		{"negative size", eventLog{mode: denied, format: "text", file: sink.FileOptions{Path: "/f", MaxMegabytes: -1}}, "--event-log-file-max-size"},
		{"size beyond int64", eventLog{mode: denied, format: "text", file: sink.FileOptions{Path: "/f", MaxMegabytes: 1 << 43}}, "--event-log-file-max-size"},
		{"negative age", eventLog{mode: denied, format: "text", file: sink.FileOptions{Path: "/f", RetainDays: -1}}, "--event-log-file-max-age"},
		{"age beyond a duration", eventLog{mode: denied, format: "text", file: sink.FileOptions{Path: "/f", RetainDays: 999999}}, "--event-log-file-max-age"},
		{"negative backups", eventLog{mode: denied, format: "text", file: sink.FileOptions{Path: "/f", MaxBackups: -1}}, "--event-log-file-max-backups"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.o.interval, tc.o.rate, tc.o.burst = time.Second, 1, 1
			_, sinks, err := tc.o.sinks("node-1")
			if err != nil {
				if tc.want == "" || !strings.Contains(err.Error(), tc.want) {
					t.Error(err)
				}
				return
			}
			if strings.HasPrefix(tc.want, "--") {
				t.Fatalf("%s is taken", tc.want)
			}
			var names []string
			for _, s := range sinks {
				names = append(names, s.Name())
			}
			if got := strings.Join(names, " "); got != tc.want {
				t.Errorf("sinks %q, want %q", got, tc.want)
			}
			if tc.o.cloudWatch && (tc.o.logs.Group != "/aws/eks/c/cluster" || tc.o.logs.Stream != "kidoban-node-1") {
				t.Errorf("%+v", tc.o.logs)
			}
		})
	}
}
