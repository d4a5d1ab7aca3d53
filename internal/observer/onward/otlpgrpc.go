package onward

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/sink"
)

// exportLogs is the method of OTLP's logs service. The service's own package imports an HTTP gateway, which this needs not.
const exportLogs = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

// encoded passes on messages that are encoded already.
type encoded struct{}

func (encoded) Name() string { return "proto" }

func (encoded) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (encoded) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = slices.Clone(data)
	return nil
}

// OTLPOverGRPC is a sink that sends flows as OTLP logs over gRPC.
func OTLPOverGRPC(o OTLPOptions) (sink.Sink, error) {
	u, err := o.url("4317")
	if err != nil {
		return nil, err
	}
	if u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("%q is not a valid OTLP endpoint for gRPC: it must not have a path", o.Endpoint)
	}
	secure := insecure.NewCredentials()
	target := u.Host
	if u.Scheme == "https" {
		secure = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
		if u.Port() == "" {
			target += ":443"
		}
	} else if u.Port() == "" {
		target += ":4317"
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(secure), grpc.WithDefaultCallOptions(grpc.ForceCodec(encoded{})))
	if err != nil {
		return nil, err
	}
	header := metadata.MD{}
	for name, values := range o.Header {
		header.Append(name, values...)
	}
	return sink.Call(sink.CallOptions{
		Name: "otlp", Close: conn.Close,
		Call: func(ctx context.Context, lines [][]byte) (int, error) {
			body, err := request(lines, o.Version, time.Now())
			if err != nil {
				return 0, sink.Refused(err)
			}
			var answer []byte
			if err := conn.Invoke(metadata.NewOutgoingContext(ctx, header), exportLogs, &body, &answer); err != nil {
				err = fmt.Errorf("OTLP receiver %s: %w", target, err)
				if !slices.Contains(retried, status.Code(err)) {
					err = sink.Refused(err)
				}
				return 0, err
			}
			return refused(answer), nil
		},
	}), nil
}

// retried are the codes after which OTLP allows another attempt.
var retried = []codes.Code{
	codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss, codes.ResourceExhausted,
}
