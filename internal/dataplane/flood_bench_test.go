package dataplane_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/sink"
)

// A flood comes from a process of its own, so that what it costs is not taken for what the agent costs.
const (
	floodTarget  = "KIDOBAN_TEST_FLOOD" // address to send to
	floodRate    = "KIDOBAN_TEST_FLOOD_RATE"
	floodPorts   = "KIDOBAN_TEST_FLOOD_PORTS" // destination ports, in turn
	floodSeconds = 5
)

func init() {
	target, err := netip.ParseAddr(os.Getenv(floodTarget))
	if err != nil {
		return
	}
	if err := flood(target); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func flood(target netip.Addr) error {
	rate, err := strconv.Atoi(os.Getenv(floodRate))
	if err != nil {
		return err
	}
	ports, err := strconv.Atoi(os.Getenv(floodPorts))
	if err != nil {
		return err
	}
	const payload = "0123456789abcdef"
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	to := &unix.SockaddrInet4{Addr: target.As4()}
	begin := time.Now()
	for i := 0; ; i++ {
		if i%32 == 0 {
			now := time.Since(begin)
			if now > floodSeconds*time.Second {
				return nil
			}
			if ahead := time.Duration(i)*time.Second/time.Duration(rate) - now; ahead > time.Millisecond {
				time.Sleep(ahead)
			}
		}
		if ports > 1 && i > 0 && i%ports == 0 { // flows that were there are not new: another source port
			if err := unix.Close(fd); err != nil {
				return err
			}
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0); err != nil {
				return err
			}
		}
		to.Port = 1000 + i%ports
		_ = unix.Sendto(fd, []byte(payload), 0, to) // an ICMP error about an earlier one is none of this one's
	}
}

// nameless has no names.
type nameless struct{}

func (nameless) Pod(netip.Addr, time.Time) (flowlog.Pod, bool) { return flowlog.Pod{}, false }
func (nameless) Rule(compiler.RuleID) (agentapi.RuleRef, bool) { return agentapi.RuleRef{}, false }
func (nameless) Isolating(compiler.SetID) []agentapi.PolicyRef { return nil }

func (nameless) DomainNames(netip.Addr) []string { return nil }

func (nameless) NameMiss(compiler.SetID, policy.Flow) *agentapi.NameMiss { return nil }

func (nameless) Audited(compiler.SetID) ([]agentapi.PolicyRef, bool) { return nil, false }

// BenchmarkFlood is of one pod that sends to another at a given rate: what that costs the process that
// writes the flow log, and whether the log's counts come to what the kernel counted.
func BenchmarkFlood(b *testing.B) {
	for _, tc := range []struct {
		name        string
		mode        dataplane.EventMode
		allowed     bool
		rate, ports int
	}{
		{"refused/one-kind/off", dataplane.EventsOff, false, 100_000, 1},
		{"refused/one-kind/denied", dataplane.EventsDenied, false, 100_000, 1},
		{"refused/60000-ports/denied", dataplane.EventsDenied, false, 100_000, 60_000},
		{"accepted/20000-new-flows/denied", dataplane.EventsDenied, true, 20_000, 60_000},
		{"accepted/20000-new-flows/all", dataplane.EventsAll, true, 20_000, 60_000},
	} {
		b.Run(tc.name, func(b *testing.B) {
			for b.Loop() {
				floodOnce(b, tc.mode, tc.allowed, tc.rate, tc.ports)
			}
		})
	}
}

func floodOnce(b *testing.B, mode dataplane.EventMode, allowed bool, rate, ports int) {
	n := newNode(b, dataplane.Options{Events: mode, EventRate: 50, EventBurst: 100, CountHits: true})
	sender, receiver := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	receiver.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/icmp_ratemask", []byte("8"), 0o644) })
	if allowed {
		n.set(sender, isolate(policy.Egress, with(pods(receiver))))
	} else {
		n.set(sender, isolate(policy.Egress))
	}
	path := filepath.Join(b.TempDir(), "flow.log")
	log := flowlog.New(flowlog.Options{
		Node: "node", Source: n.d, Interval: 2 * time.Second, Directory: nameless{}, Format: flowlog.JSON, Registry: prometheus.NewRegistry(),
		Sinks: []sink.Sink{sink.File(sink.FileOptions{Path: path, MaxMegabytes: 100})}, Log: testr.NewWithInterface(b, testr.Options{}),
	})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- log.Start(ctx) }()

	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), floodTarget+"="+receiver.V4.String(), fmt.Sprint(floodRate, "=", rate), fmt.Sprint(floodPorts, "=", ports))
	cmd.Stderr = os.Stderr
	before := cpuTime(b)
	sender.Do(cmd.Start)
	check(b, cmd.Wait())
	agent := cpuTime(b) - before
	stop()
	check(b, <-done)

	counters, err := n.d.Counters()
	check(b, err)
	judged, wanted := uint64(0), uint64(0)
	for _, c := range counters.Judged {
		judged += c.Packets
		if mode == dataplane.EventsAll || mode == dataplane.EventsDenied && c.Verdict != events.Allow {
			wanted += c.Packets
		}
	}
	lines, packets := logged(b, path)
	if packets+counters.UnlistedPackets != wanted {
		b.Errorf("the log's lines come to %d packets and %d are unlisted; the kernel counted %d", packets, counters.UnlistedPackets, wanted)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(judged)/floodSeconds, "judged/s")
	b.ReportMetric(100*agent.Seconds()/floodSeconds, "agent-%core")
	b.ReportMetric(float64(lines)/floodSeconds, "lines/s")
	b.ReportMetric(float64(counters.LostEvents), "lost-events")
	b.ReportMetric(float64(counters.UnlistedPackets), "unlisted")
}

// logged is how many lines a flow log has and for how many packets they stand.
func logged(b *testing.B, path string) (lines, packets uint64) {
	b.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return 0, 0
	}
	check(b, err)
	defer func() { _ = f.Close() }()
	for s := bufio.NewScanner(f); s.Scan(); lines++ {
		var e agentapi.Event
		check(b, json.Unmarshal(s.Bytes(), &e))
		packets += e.Count
	}
	return lines, packets
}

// cpuTime of this process.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var now unix.Timespec
	check(b, unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now))
	return time.Duration(now.Nano())
}

// BenchmarkReport is of one packet of a new flow, by what becomes of its verdict: what the log
// costs the packet.
func BenchmarkReport(b *testing.B) {
	for name, opts := range map[string]dataplane.Options{
		"off":         {Events: dataplane.EventsOff},
		"off/hits":    {Events: dataplane.EventsOff, CountHits: true},
		"denied/hits": {Events: dataplane.EventsDenied, CountHits: true},
		"all/hits":    {Events: dataplane.EventsAll, CountHits: true},
	} {
		opts.EventRate = 50
		d := newDataplane(b, opts)
		sync(b, d, peers(1))
		for kind, p := range map[string]packet{
			"accepted": {Flow: flow("11.0.0.0", "10.0.0.1", policy.TCP, 80)},
			"denied":   {Flow: flow("12.0.0.0", "10.0.0.1", policy.TCP, 80)},
		} {
			b.Run(kind+"/"+name, func(b *testing.B) {
				var ns float64
				for b.Loop() {
					ns += nsPerRun(b, d.Program(), p.ip())
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(ns/float64(b.N), "ns/packet")
			})
		}
	}
}
