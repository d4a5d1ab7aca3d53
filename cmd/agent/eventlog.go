package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	// Mozilla's certificates, for CloudWatch Logs: the image has none.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/sink"
)

// eventLog are the flags of the flow log. docs/flow-log.md describes them.
type eventLog struct {
	mode     eventMode
	interval time.Duration
	rate     uint
	burst    uint
	format   string
	file     sink.FileOptions
	stdout   bool

	cloudWatch  bool
	clusterName string
	logs        sink.CloudWatchOptions
}

func (o *eventLog) bind(fs *flag.FlagSet) {
	o.mode = eventMode(dataplane.EventsDenied)
	fs.Var(&o.mode, "enable-policy-event-logs", "Which flows of isolated pods are logged: off, denied, or all (true).")
	fs.DurationVar(&o.interval, "event-interval", 30*time.Second, "The first packet of each kind is logged at once, and further ones as one line per interval.")
	fs.UintVar(&o.rate, "event-rate", 50, "New kinds of events per second and pod in the long run. Further ones are summed up in one line for the pod.")
	fs.UintVar(&o.burst, "event-burst", 100, "New kinds of events that one pod may cause at once.")
	fs.StringVar(&o.format, "event-log-format", string(flowlog.Text), "Format of logged events: text or json.")
	fs.StringVar(&o.file.Path, "event-log-file", "", "File to log events to; empty: none.")
	fs.IntVar(&o.file.MaxMegabytes, "event-log-file-max-size", 50, "Rotate and compress the file at this size (MB). It is also rotated daily.")
	fs.IntVar(&o.file.MaxBackups, "event-log-file-max-backups", 10, "Number of rotated files to keep.")
	fs.IntVar(&o.file.RetainDays, "event-log-file-max-age", 7, "Days to keep rotated files.")
	fs.BoolVar(&o.stdout, "event-log-stdout", false, "Log events to standard output. (The agent's own log goes to standard error.)")
	fs.BoolVar(&o.cloudWatch, "enable-cloudwatch-logs", false, "Log events to Amazon CloudWatch Logs, with the region and the credentials of the AWS SDK's default chain.")
	fs.StringVar(&o.clusterName, "cluster-name", os.Getenv("CLUSTER_NAME"), "The cluster's name, for --cloudwatch-log-group. Default: environment CLUSTER_NAME.")
	fs.StringVar(&o.logs.Group, "cloudwatch-log-group", "", "Log group. Default: /aws/eks/CLUSTER/cluster by --cluster-name.")
	fs.StringVar(&o.logs.Endpoint, "cloudwatch-endpoint", "", "URL of CloudWatch Logs, such as a VPC endpoint's. Default: the region's own.")
}

// sinks returns the sinks that the flags select.
func (o *eventLog) sinks(node string) (flowlog.Format, []sink.Sink, error) {
	format, err := flowlog.ParseFormat(o.format)
	if err != nil {
		return "", nil, fmt.Errorf("--event-log-format: %w", err)
	}
	if o.interval < time.Second || o.rate < 1 || o.rate > 1e6 || o.burst < 1 || o.burst > 1e6 {
		return "", nil, errors.New("--event-interval must be at least 1s, --event-rate and --event-burst from 1 to 1000000")
	}
	if err := o.file.Check("event-log-file"); err != nil {
		return "", nil, err
	}
	if o.cloudWatch && o.logs.Group == "" && o.clusterName == "" {
		return "", nil, errors.New("--enable-cloudwatch-logs needs --cluster-name or --cloudwatch-log-group")
	}
	var out []sink.Sink
	if o.mode == eventMode(dataplane.EventsOff) {
		return format, nil, nil
	}
	if o.file.Path != "" {
		o.file.MaxAge = 24 * time.Hour
		out = append(out, sink.File(o.file))
	}
	if o.stdout {
		out = append(out, sink.Stdout())
	}
	if o.cloudWatch {
		if o.logs.Group == "" {
			o.logs.Group = "/aws/eks/" + o.clusterName + "/cluster"
		}
		o.logs.Stream = "kidoban-" + node
		out = append(out, sink.CloudWatch(o.logs))
	}
	return format, out, nil
}

// eventMode is a flag: off, denied or all, or as a boolean.
type eventMode dataplane.EventMode

var eventModes = map[string]dataplane.EventMode{
	"off": dataplane.EventsOff, "false": dataplane.EventsOff,
	"denied": dataplane.EventsDenied,
	"all":    dataplane.EventsAll, "true": dataplane.EventsAll,
}

func (m *eventMode) String() string {
	return [...]string{dataplane.EventsOff: "off", dataplane.EventsDenied: "denied", dataplane.EventsAll: "all"}[*m]
}

// Set reads the flag's value.
func (m *eventMode) Set(s string) error {
	mode, ok := eventModes[s]
	if !ok {
		return errors.New("must be off, denied or all")
	}
	*m = eventMode(mode)
	return nil
}

// IsBoolFlag lets the flag stand alone, which is true.
func (m *eventMode) IsBoolFlag() bool { return true }
