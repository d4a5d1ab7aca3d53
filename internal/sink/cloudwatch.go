package sink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// CloudWatchOptions say where in CloudWatch Logs lines go. Region and credentials come from the SDK's default chain: the environment
// (IAM roles for service accounts, EKS Pod Identity), the shared files, the instance's metadata.
type CloudWatchOptions struct {
	// Group is made where it is missing.
	Group string
	// Stream of this node in the group; made where it is missing.
	Stream string
	// Endpoint is a URL in place of the region's own; empty: that.
	Endpoint string
}

// What PutLogEvents takes at once.
// https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
var cloudWatchLimits = limits{
	lines:    10_000,
	bytes:    1 << 20,
	overhead: 26,
	span:     24 * time.Hour,
	linger:   5 * time.Second,
}

// callTimeout is for one call, in which the SDK may also fetch credentials.
const callTimeout = 30 * time.Second

type toCloudWatch struct {
	opts   CloudWatchOptions
	lim    limits
	client *cloudwatchlogs.Client // nil: not yet, credentials or region may still come
	ready  bool                   // the stream is there
}

// CloudWatch sends lines to CloudWatch Logs. It connects when there is something to send.
func CloudWatch(opts CloudWatchOptions) Sink {
	return &toCloudWatch{opts: opts, lim: cloudWatchLimits}
}

func (c *toCloudWatch) Name() string   { return "cloudwatch" }
func (c *toCloudWatch) limits() limits { return c.lim }
func (c *toCloudWatch) close() error   { return nil }

func (c *toCloudWatch) deliver(ctx context.Context, lines []line) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.prepare(ctx); err != nil {
		return result{}, err
	}
	// "The log events in the batch must be in chronological order by their timestamp."
	events := make([]types.InputLogEvent, len(lines))
	for i, l := range lines {
		events[i] = types.InputLogEvent{
			Timestamp: aws.Int64(l.time.UnixMilli()),
			Message:   aws.String(strings.TrimSuffix(string(l.text), "\n")),
		}
	}
	slices.SortStableFunc(events, func(a, b types.InputLogEvent) int { return int(*a.Timestamp - *b.Timestamp) })
	out, err := c.client.PutLogEvents(ctx, &cloudwatchlogs.PutLogEventsInput{
		LogGroupName: &c.opts.Group, LogStreamName: &c.opts.Stream, LogEvents: events,
	})
	if err != nil {
		return result{}, c.explain("write to", err)
	}
	return result{refused: rejected(out.RejectedLogEventsInfo, len(events))}, nil
}

// prepare connects, and makes the stream and its group where they are missing.
func (c *toCloudWatch) prepare(ctx context.Context) error {
	if c.ready {
		return nil
	}
	if c.client == nil {
		// One place tries again: the queue, which does it for as long as it takes.
		cfg, err := config.LoadDefaultConfig(ctx, config.WithEC2IMDSRegion(),
			config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }))
		if err != nil {
			return fmt.Errorf("configure the AWS SDK: %w", err)
		}
		if cfg.Region == "" {
			return errors.New("no AWS region is known: set the environment variable AWS_REGION")
		}
		c.client = cloudwatchlogs.NewFromConfig(cfg, func(o *cloudwatchlogs.Options) {
			if c.opts.Endpoint != "" {
				o.BaseEndpoint = &c.opts.Endpoint
			}
		})
	}
	err := c.makeStream(ctx)
	if isMissing(err) {
		_, err = c.client.CreateLogGroup(ctx, &cloudwatchlogs.CreateLogGroupInput{LogGroupName: &c.opts.Group})
		if err == nil || exists(err) {
			err = c.makeStream(ctx)
		}
	}
	if err != nil {
		return c.explain("make", err)
	}
	c.ready = true
	return nil
}

func (c *toCloudWatch) makeStream(ctx context.Context) error {
	_, err := c.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &c.opts.Group, LogStreamName: &c.opts.Stream})
	if exists(err) {
		return nil
	}
	return err
}

// explain names the stream, and sorts out what cannot heal by trying again.
func (c *toCloudWatch) explain(verb string, err error) error {
	var invalid *types.InvalidParameterException
	if isMissing(err) {
		c.ready = false // it was deleted: make it again
	}
	err = fmt.Errorf("%s CloudWatch log stream %s of group %s: %w", verb, c.opts.Stream, c.opts.Group, err)
	if errors.As(err, &invalid) {
		return refusedError{err}
	}
	return err
}

// rejected is how many events CloudWatch took in and threw away, for their age.
func rejected(info *types.RejectedLogEventsInfo, events int) int {
	if info == nil {
		return 0
	}
	old := max(value(info.TooOldLogEventEndIndex), value(info.ExpiredLogEventEndIndex)) // the first that is not
	n := int(min(old, int32(events)))
	if start := info.TooNewLogEventStartIndex; start != nil {
		n += max(0, events-int(*start))
	}
	return min(n, events)
}

func value(p *int32) int32 {
	if p == nil {
		return 0
	}
	return *p
}

func isMissing(err error) bool {
	var missing *types.ResourceNotFoundException
	return errors.As(err, &missing)
}

func exists(err error) bool {
	var exists *types.ResourceAlreadyExistsException
	return errors.As(err, &exists)
}
