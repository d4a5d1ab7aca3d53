package reach

import (
	"bufio"
	"context"
	"net"
	"strings"
	"sync"
	"time"
)

// A Watch repeats attempts until its context ends.
type Watch struct {
	// Dial are targets to connect to anew each time.
	Dial []Target
	// Hold are TCP targets to connect to once; an attempt sends a line and waits for its echo.
	Hold []Target
	// Interval between the starts of two attempts at a target. An attempt at Dial does not wait for the one before.
	Interval time.Duration
	// Timeout of one attempt.
	Timeout time.Duration
	// Report is called with each result, from several goroutines. Attempts that ctx cut short are not reported.
	Report func(Result)
}

// Run returns when ctx has ended and no attempt is under way.
func (w *Watch) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, target := range w.Dial {
		wg.Go(func() { w.redial(ctx, target) })
	}
	for _, target := range w.Hold {
		wg.Go(func() { w.hold(ctx, target) })
	}
	wg.Wait()
}

func (w *Watch) redial(ctx context.Context, target Target) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ticker := time.NewTicker(w.Interval)
	defer ticker.Stop()
	for {
		wg.Go(func() { w.report(ctx, Dial(ctx, target, w.Timeout)) })
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// hold ends after the first attempt that fails: what comes later says nothing about the connection.
func (w *Watch) hold(ctx context.Context, target Target) {
	start := time.Now()
	report := func(server string, err error) {
		r := newResult(target, start, server, err)
		r.Held = true
		w.report(ctx, r)
	}
	var dialer net.Dialer
	connecting, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	conn, err := dialer.DialContext(connecting, target.Protocol, target.Address.String())
	if err != nil {
		report("", err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	lines := bufio.NewReader(conn)
	ticker := time.NewTicker(w.Interval)
	defer ticker.Stop()
	server := ""
	for {
		if err := conn.SetDeadline(time.Now().Add(w.Timeout)); err != nil {
			report("", err)
			return
		}
		line, err := lines.ReadString('\n') // first the server's name, then echoes
		if server == "" {
			server = strings.TrimSpace(line)
		}
		report(server, err)
		if err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		start = time.Now()
		if _, err := conn.Write([]byte("still here\n")); err != nil {
			report("", err)
			return
		}
	}
}

func (w *Watch) report(ctx context.Context, r Result) {
	if ctx.Err() == nil {
		w.Report(r)
	}
}
