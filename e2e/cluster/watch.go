package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/reach"
)

// WatchInterval is the time between two attempts of a Watch at one target.
const WatchInterval = 200 * time.Millisecond

// A Watch is `probe watch` in a pod: connections that are made again and again, or held, until Stop. It goes on while
// the API server or the kubelet is away, and ends with this process.
type Watch struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr strings.Builder
	read   chan struct{} // closed when there is no more to read

	mu      sync.Mutex
	results []reach.Result
	counts  map[watched]int
	changed chan struct{} // closed, and made anew, at each result
	err     error
}

type watched struct {
	target reach.Target
	held   bool
}

// Watch starts to dial some targets again and again, and to hold a TCP connection to others.
func (c *Cluster) Watch(ctx context.Context, pod *corev1.Pod, dial, hold []reach.Target, timeout time.Duration) (*Watch, error) {
	return c.WatchEvery(ctx, WatchInterval, pod, dial, hold, timeout)
}

// WatchEvery is Watch with another interval.
func (c *Cluster) WatchEvery(ctx context.Context, interval time.Duration, pod *corev1.Pod, dial, hold []reach.Target, timeout time.Duration) (*Watch, error) {
	w := &Watch{read: make(chan struct{}), counts: map[watched]int{}, changed: make(chan struct{})}
	argv := []string{"/probe", "watch", "--interval", interval.String(), "--timeout", timeout.String()}
	for _, target := range hold {
		argv = append(argv, "--hold", target.String())
		w.counts[watched{target, true}] = 0
	}
	for _, target := range dial {
		argv = append(argv, target.String())
		w.counts[watched{target, false}] = 0
	}
	var err error
	if w.cmd, err = c.InPod(ctx, pod, argv...); err != nil {
		return nil, err
	}
	if w.stdin, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.cmd.Stderr = &w.stderr
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	go w.readAll(stdout)
	return w, nil
}

func (w *Watch) readAll(r io.Reader) {
	defer close(w.read)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var result reach.Result
		err := json.Unmarshal(lines.Bytes(), &result)
		w.mu.Lock()
		if err != nil {
			w.err = errors.Join(w.err, err)
		} else {
			w.results = append(w.results, result)
			w.counts[watched{result.Target, result.Held}]++
			if result.Held && result.Outcome != reach.Open {
				delete(w.counts, watched{result.Target, true}) // a broken connection has no more results
			}
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
	}
}

// Await waits until there are n more results of every target than there are now, but for held connections that have ended.
func (w *Watch) Await(ctx context.Context, n int) error {
	w.mu.Lock()
	want := map[watched]int{}
	for key, count := range w.counts {
		want[key] = count + n
	}
	w.mu.Unlock()
	for {
		missing := ""
		w.mu.Lock()
		for key, count := range want {
			if now, goesOn := w.counts[key]; goesOn && now < count {
				missing = fmt.Sprintf("%d of %d results from %s (held: %t)", now, count, key.target, key.held)
			}
		}
		changed := w.changed
		w.mu.Unlock()
		if missing == "" {
			return nil
		}
		select {
		case <-changed:
		case <-w.read:
			return fmt.Errorf("the watch has ended with %s: %s", missing, w.stderr.String())
		case <-ctx.Done():
			return fmt.Errorf("%w with %s", ctx.Err(), missing)
		}
	}
}

// Stop ends the watch and returns all its results.
func (w *Watch) Stop() ([]reach.Result, error) {
	err := w.stdin.Close()
	<-w.read // before Wait, which closes the pipe
	err = errors.Join(err, w.cmd.Wait())
	if err != nil {
		err = fmt.Errorf("%w: %s", err, w.stderr.String())
	}
	return w.results, errors.Join(err, w.err)
}

// Results are those so far.
func (w *Watch) Results() []reach.Result {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.results)
}
