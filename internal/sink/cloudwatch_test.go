package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/util/wait"
)

var at = time.Date(2026, 11, 22, 10, 30, 0, 123456789, time.UTC)

// cloud is CloudWatch Logs as its API documents it, less all that the sink does not use.
type cloud struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	streams  map[string]map[string]bool // by group
	messages []string
	batches  []int
	calls    []string
	answer   func(operation string) (status int, body string) // for what is not as usual; 0: as usual
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{t: t, streams: map[string]map[string]bool{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	t.Setenv("AWS_REGION", "eu-central-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "of-a-test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	return c
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	operation, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "Logs_20140328.")
	if !ok || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		c.t.Errorf("%s %s with the headers %v", r.Method, r.URL, r.Header)
	}
	if a := r.Header.Get("Authorization"); !strings.HasPrefix(a, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/") || !strings.Contains(a, "/eu-central-1/logs/aws4_request") {
		c.t.Errorf("signed by %q", a)
	}
	c.calls = append(c.calls, operation)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // gone while it spoke
	}
	status, answer := 0, ""
	if c.answer != nil {
		status, answer = c.answer(operation)
	}
	if status == 0 {
		status, answer = c.serve(operation, body)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func (c *cloud) serve(operation string, body []byte) (int, string) {
	var in struct {
		LogGroupName, LogStreamName string
		LogEvents                   []struct {
			Timestamp int64
			Message   string
		}
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&in); err != nil {
		c.t.Errorf("%s with %q: %v", operation, body, err)
	}
	group := c.streams[in.LogGroupName]
	switch {
	case operation == "CreateLogGroup" && group == nil:
		c.streams[in.LogGroupName] = map[string]bool{}
		return 200, "{}"
	case operation == "CreateLogGroup", operation == "CreateLogStream" && group[in.LogStreamName]:
		return fault("ResourceAlreadyExistsException")
	case group == nil, operation == "PutLogEvents" && !group[in.LogStreamName]:
		return fault("ResourceNotFoundException")
	case operation == "CreateLogStream":
		group[in.LogStreamName] = true
		return 200, "{}"
	}
	size, sorted := 0, true
	for i, e := range in.LogEvents {
		size += len(e.Message) + 26
		sorted = sorted && (i == 0 || in.LogEvents[i-1].Timestamp <= e.Timestamp)
	}
	n := len(in.LogEvents)
	if n == 0 || n > 10_000 || size > 1_048_576 || !sorted || in.LogEvents[n-1].Timestamp-in.LogEvents[0].Timestamp > 24*3600*1000 {
		c.t.Errorf("a batch of %d events and %d bytes, sorted %v, from %d to %d", n, size, sorted, in.LogEvents[0].Timestamp, in.LogEvents[n-1].Timestamp)
		return fault("InvalidParameterException")
	}
	c.batches = append(c.batches, n)
	for _, e := range in.LogEvents {
		c.messages = append(c.messages, e.Message)
	}
	return 200, "{}"
}

func fault(kind string) (int, string) {
	return 400, fmt.Sprintf(`{"__type":%q,"message":"as the test wants it"}`, kind)
}

func (c *cloud) failing(status int, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = nil
	if kind != "" {
		_, body := fault(kind)
		c.answer = func(string) (int, string) { return status, body }
	}
}

func (c *cloud) state() (messages []string, batches []int, calls []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.messages...), append([]int(nil), c.batches...), append([]string(nil), c.calls...)
}

// shipped is a queue that runs as long as the test.
type shipped struct {
	*queue
	log bytes.Buffer
	mu  sync.Mutex
}

func ship(t *testing.T, s Sink) *shipped {
	out := &shipped{}
	log := funcr.New(func(_, args string) {
		out.mu.Lock()
		defer out.mu.Unlock()
		fmt.Fprintln(&out.log, args)
	}, funcr.Options{})
	out.queue = newQueue(s, newMetrics(prometheus.NewRegistry(), "test"), log)
	out.retries = wait.Backoff{Duration: time.Millisecond, Factor: 1.1, Steps: 1 << 30, Cap: 20 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		out.run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return out
}

func (s *shipped) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

func cloudWatch(c *cloud, change ...func(*limits)) Sink {
	s := CloudWatch(CloudWatchOptions{Group: "/aws/eks/shop/cluster", Stream: "kidoban-node-1", Endpoint: c.URL}).(*toCloudWatch)
	s.lim.linger = 10 * time.Millisecond
	for _, f := range change {
		f(&s.lim)
	}
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func (c *cloud) has(n int) func() bool {
	return func() bool {
		messages, _, _ := c.state()
		return len(messages) >= n
	}
}

func text(i int) line {
	return line{time: at.Add(time.Duration(i) * time.Millisecond), text: fmt.Appendf(nil, "line %d\n", i)}
}

func TestCloudWatchMakesGroupAndStreamOnce(t *testing.T) {
	c := newCloud(t)
	q := ship(t, cloudWatch(c))
	q.offer(text(1))
	eventually(t, "one line", c.has(1))
	q.offer(text(2))
	eventually(t, "two lines", c.has(2))
	messages, _, calls := c.state()
	if got := strings.Join(messages, "|"); got != "line 1|line 2" {
		t.Errorf("messages %q", got)
	}
	if got := strings.Join(calls, " "); got != "CreateLogStream CreateLogGroup CreateLogStream PutLogEvents PutLogEvents" {
		t.Errorf("calls: %s", got)
	}
	eventually(t, "two lines are counted", func() bool { return testutil.ToFloat64(q.written) == 2 })
}

func TestCloudWatchMakesAStreamAgainThatWasDeleted(t *testing.T) {
	c := newCloud(t)
	q := ship(t, cloudWatch(c))
	q.offer(text(1))
	eventually(t, "one line", c.has(1))
	c.mu.Lock()
	clear(c.streams)
	c.mu.Unlock()
	q.offer(text(2))
	eventually(t, "two lines", c.has(2))
}

func TestBatchesKeepCloudWatchsLimits(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	for _, tc := range []struct {
		name    string
		lines   []line
		batches int
	}{
		{"number", lines(12_000, func(i int) line { return text(i) }), 2},
		{"bytes, with 26 for each event", lines(25, func(i int) line { return line{time: at, text: []byte(long + "\n")} }), 3},
		{"order", lines(50, func(i int) line { return text(1000 - i) }), 1},
		{"24 hours", lines(5, func(i int) line { return line{time: at.Add(time.Duration(i) * 12 * time.Hour), text: []byte("old\n")} }), 3},
		{"24 hours to the past", lines(3, func(i int) line { return line{time: at.Add(time.Duration(-i) * 24 * time.Hour), text: []byte("old\n")} }), 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t)
			q := newQueue(cloudWatch(c, func(l *limits) { l.linger = time.Second }), newMetrics(prometheus.NewRegistry(), "test"), funcr.New(func(_, s string) { t.Error(s) }, funcr.Options{}))
			for _, l := range tc.lines {
				q.offer(l)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() {
				defer close(done)
				q.run(ctx)
			}()
			eventually(t, "all lines", c.has(len(tc.lines)))
			cancel()
			<-done
			if _, batches, _ := c.state(); len(batches) != tc.batches {
				t.Errorf("batches of %v, want %d of them", batches, tc.batches)
			}
		})
	}
}

func lines(n int, f func(int) line) []line {
	out := make([]line, n)
	for i := range out {
		out[i] = f(i)
	}
	return out
}

// What is wrong heals: nothing is lost that fits the queue, order is kept, and it is said once.
func TestCloudWatchAwayAndBack(t *testing.T) {
	for _, tc := range []struct {
		name, kind string
		status     int
	}{
		{"throttled", "ThrottlingException", 400},
		{"forbidden", "AccessDeniedException", 400},
		{"unknown key", "UnrecognizedClientException", 400},
		{"down", "ServiceUnavailableException", 500},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t)
			q := ship(t, cloudWatch(c))
			q.offer(text(0))
			eventually(t, "the first line", c.has(1))
			c.failing(tc.status, tc.kind)
			for i := range 100 {
				q.offer(text(i + 1))
			}
			eventually(t, "five failures", func() bool { return testutil.ToFloat64(q.errors) >= 5 })
			if messages, _, _ := c.state(); len(messages) != 1 {
				t.Fatalf("%d messages while it fails", len(messages))
			}
			c.failing(0, "")
			eventually(t, "all lines", c.has(101))
			messages, _, _ := c.state()
			for i, m := range messages {
				if m != fmt.Sprint("line ", i) {
					t.Fatalf("message %d is %q", i, m)
				}
			}
			eventually(t, "the log to say so", func() bool { return strings.Contains(q.logged(), "written again") })
			if got := strings.Count(q.logged(), "\n"); got != 2 {
				t.Errorf("%d lines in the agent's log:\n%s", got, q.logged())
			}
			if n := testutil.ToFloat64(q.overflown) + testutil.ToFloat64(q.refused); n != 0 {
				t.Errorf("%v lines counted as dropped", n)
			}
		})
	}
}

func TestCloudWatchUnreachable(t *testing.T) {
	c := newCloud(t)
	address := c.URL
	c.Close()
	s := CloudWatch(CloudWatchOptions{Group: "g", Stream: "s", Endpoint: address}).(*toCloudWatch)
	s.lim.linger = time.Millisecond
	q := ship(t, s)
	for i := range queued + 3*s.lim.lines { // more than fit the queue and the delivery in hand
		q.offer(text(i))
	}
	eventually(t, "failures", func() bool { return testutil.ToFloat64(q.errors) >= 3 })
	written, lost, held := testutil.ToFloat64(q.written), testutil.ToFloat64(q.overflown), len(q.lines)
	inHand := queued + 3*s.lim.lines - int(lost) - held
	if written != 0 || lost == 0 || inHand < 1 || inHand > s.lim.lines {
		t.Errorf("written %v, lost %v, queued %d, in hand %d", written, lost, held, inHand)
	}
}

func TestABatchThatIsRefusedIsGivenUpAndCounted(t *testing.T) {
	c := newCloud(t)
	q := ship(t, cloudWatch(c))
	q.offer(text(1))
	eventually(t, "one line", c.has(1))
	c.failing(400, "InvalidParameterException")
	q.offer(text(2))
	eventually(t, "it is counted", func() bool { return testutil.ToFloat64(q.refused) == 1 })
	c.failing(0, "")
	q.offer(text(3))
	eventually(t, "the next one is taken", c.has(2))
}

func TestEventsThatCloudWatchThrowsAwayAreCounted(t *testing.T) {
	c := newCloud(t)
	q := ship(t, cloudWatch(c))
	c.mu.Lock()
	c.answer = func(operation string) (int, string) {
		if operation != "PutLogEvents" {
			return 0, ""
		}
		return 200, `{"rejectedLogEventsInfo":{"tooOldLogEventEndIndex":1}}`
	}
	c.mu.Unlock()
	q.offer(text(1))
	eventually(t, "it is counted", func() bool { return testutil.ToFloat64(q.refused) == 1 })
	if n := testutil.ToFloat64(q.written); n != 0 {
		t.Errorf("%v lines counted as written", n)
	}
}

func TestWhatIsQueuedIsSentBeforeTheEnd(t *testing.T) {
	c := newCloud(t)
	q := newQueue(cloudWatch(c, func(l *limits) { l.linger = time.Hour }), newMetrics(prometheus.NewRegistry(), "test"), funcr.New(func(_, s string) { t.Error(s) }, funcr.Options{}))
	q.lastChance = time.Minute // of a busy machine
	for i := range 20_000 {
		q.offer(text(i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	q.run(ctx)
	if messages, _, _ := c.state(); len(messages) != queued {
		t.Errorf("%d messages of the %d that fit", len(messages), queued)
	}
}
