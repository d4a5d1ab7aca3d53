package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"strings"
	"time"

	// Mozilla's certificates, for CloudWatch Logs and receivers of OTLP: the image has none.
	_ "golang.org/x/crypto/x509roots/fallback"

	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/onward"
	"github.com/kidoban/kidoban/internal/sink"
	"github.com/kidoban/kidoban/internal/version"
)

// onwardFlags say where flows are sent on. docs/observer.md describes them.
type onwardFlags struct {
	otlp, protocol, headers string
	file                    sink.FileOptions
	logs                    sink.CloudWatchOptions
}

// Protocols of OTLP, by the names of OpenTelemetry's OTEL_EXPORTER_OTLP_PROTOCOL.
const (
	otlpHTTP = "http/protobuf"
	otlpGRPC = "grpc"
)

func (o *onwardFlags) bind(fs *flag.FlagSet) {
	fs.StringVar(&o.otlp, "otlp-endpoint", "", "Send flows as OTLP logs to this URL, such as http://collector.monitoring:4318, or http://collector.monitoring:4317 for gRPC; https is TLS. Empty: none.")
	fs.StringVar(&o.protocol, "otlp-protocol", otlpHTTP, "Protocol of OTLP: "+otlpHTTP+" or "+otlpGRPC+".")
	fs.StringVar(&o.headers, "otlp-headers", "", "Headers (metadata) of these requests: NAME=VALUE,… Credentials are best set as the environment variable KIDOBAN_OTLP_HEADERS, from a Secret.")
	fs.StringVar(&o.file.Path, "flow-file", "", "File to which flows are written, a JSON object a line; empty: none.")
	fs.IntVar(&o.file.MaxMegabytes, "flow-file-max-size", 50, "Rotate and compress the file at this size (MB). It is also rotated daily.")
	fs.IntVar(&o.file.MaxBackups, "flow-file-max-backups", 10, "Number of rotated files to keep.")
	fs.IntVar(&o.file.RetainDays, "flow-file-max-age", 7, "Days to keep rotated files.")
	fs.StringVar(&o.logs.Group, "cloudwatch-log-group", "", "Send flows to this log group of Amazon CloudWatch Logs, with the region and the credentials of the AWS SDK's default chain; empty: none.")
	fs.StringVar(&o.logs.Endpoint, "cloudwatch-endpoint", "", "URL of CloudWatch Logs, such as a VPC endpoint's. Default: the region's own.")
}

// sinks returns the sinks that the flags select. host names this replica.
func (o *onwardFlags) sinks(host string) (out []sink.Sink, err error) {
	header := http.Header{}
	for pair := range strings.SplitSeq(o.headers, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if name = strings.TrimSpace(name); name != "" && ok {
			header.Add(name, strings.TrimSpace(value))
		} else if pair != "" {
			return nil, errors.New("--otlp-headers must have the form NAME=VALUE,NAME=VALUE")
		}
	}
	if o.otlp != "" {
		open, ok := map[string]func(onward.OTLPOptions) (sink.Sink, error){otlpHTTP: onward.OTLP, otlpGRPC: onward.OTLPOverGRPC}[o.protocol]
		if !ok {
			return nil, fmt.Errorf("--otlp-protocol=%q must be %s or %s", o.protocol, otlpHTTP, otlpGRPC)
		}
		s, err := open(onward.OTLPOptions{Endpoint: o.otlp, Header: header, Version: version.String()})
		if err != nil {
			return nil, fmt.Errorf("--otlp-endpoint: %w", err)
		}
		out = append(out, s)
	}
	if err := o.file.Check("flow-file"); err != nil {
		return nil, err
	}
	if o.file.Path != "" {
		o.file.MaxAge = 24 * time.Hour
		out = append(out, sink.File(o.file))
	}
	if o.logs.Group != "" {
		o.logs.Stream = "kidoban-" + host
		out = append(out, sink.CloudWatch(o.logs))
	}
	return out, nil
}

// sendOn sends flows on as they arrive, until the context is done.
func sendOn(ctx context.Context, f *flows.Flows, o *onward.Onward) error {
	ended := make(chan struct{})
	go func() {
		o.Run(ctx)
		close(ended)
	}()
	for a := range f.Follow(ctx, access.Everything(), flows.Filter{}) {
		o.Missed(a.Missed)
		if a.Flow != nil {
			o.Send(a.Flow)
		}
	}
	<-ended
	return nil
}
