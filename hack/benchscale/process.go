package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// process is a controller that runs beside this program.
type process struct {
	cmd     *exec.Cmd
	began   time.Time
	log     *lines
	probe   string // address of /readyz
	metrics string
	ended   chan error
}

// start runs a program, which is killed when this one ends.
func start(name string, args ...string) (*process, error) {
	p := &process{log: &lines{}, ended: make(chan error, 1)}
	p.cmd = exec.Command(name, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.began = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	return p, nil
}

// startProbed runs a program that has a readiness probe and metrics.
func startProbed(name string, args ...string) (*process, error) {
	probe, err := freeAddress()
	if err != nil {
		return nil, err
	}
	metrics, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := start(name, append(args, "--metrics-bind-address="+metrics, "--health-probe-bind-address="+probe, "--stream-bind-address=0")...)
	if err != nil {
		return nil, err
	}
	p.probe, p.metrics = probe, metrics
	return p, nil
}

// freeAddress returns an address that no process listens on now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// end stops the process and returns its CPU time.
func (p *process) end() (time.Duration, error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case err = <-p.ended:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		err = errors.Join(errors.New("did not stop within 30 s of SIGTERM"), <-p.ended)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w; its log ends with: %s", p.cmd.Path, err, p.log.last())
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
}

// ready waits until /readyz returns 200.
func (p *process) ready(ctx context.Context) error {
	return poll(ctx, 2*time.Minute, 5*time.Millisecond, func() error {
		select {
		case err := <-p.ended:
			p.ended <- err
			return fmt.Errorf("%s exited: %v; its log ends with: %s", p.cmd.Path, err, p.log.last())
		default:
		}
		_, err := get(ctx, "http://"+p.probe+"/readyz")
		return err
	})
}

// value sums the samples of a metric.
func (p *process) value(ctx context.Context, metric string) (float64, error) {
	body, err := get(ctx, "http://"+p.metrics+"/metrics")
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	var sum float64
	for _, m := range families[metric].GetMetric() {
		sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum, nil
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return body, err
}

// poll calls ask until it returns no error, and returns the last error after the timeout.
func poll(ctx context.Context, timeout, interval time.Duration, ask func() error) error {
	deadline := time.Now().Add(timeout)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %s: %w", timeout, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(interval):
		}
	}
}

// lines stores and counts the lines written to it.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if os.Getenv("BENCHSCALE_LOG") != "" {
		_, _ = os.Stderr.Write(b)
	}
	return l.text.Write(b)
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte("\n"))
}

// last returns the end of the text.
func (l *lines) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.text.Bytes()
	return string(b[max(0, len(b)-2000):])
}
