// Command probe tells who reaches whom: `probe serve` answers connections with the host's name, `probe dial` and `probe
// watch` make them and print one JSON object (reach.Result) for each.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kidoban/kidoban/e2e/reach"
)

const usage = `Usage:
  probe serve [--name NAME] [--tcp PORT,...] [--udp PORT,...] [--while-stdin]
        answer on these ports, over both families, until a signal or the end of standard input
  probe dial [--timeout 1s] [--rounds 1] [--until TARGET,...] [--output FILE] TARGET...
        connect to all targets at the same time, print a line of JSON for each; repeat that for some rounds, but
        not after a round in which all targets of --until have answered
  probe watch [--interval 100ms] [--timeout 1s] [--hold TARGET,...] TARGET...
        connect again and again until standard input ends; keep one connection to each of --hold
  probe dns [--port 53] NAME=ADDRESS,...
        answer DNS questions for these names over UDP
  probe resolve --server ADDRESS:PORT [--network ip4] [--tcp] NAME:PORT
        ask a DNS server for a name, connect to its first address at once, and print a line of JSON
A TARGET is tcp/ADDRESS:PORT or udp/ADDRESS:PORT; an IPv6 address stands in brackets.`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("no command\n%s", usage)
	}
	switch command, args := args[0], args[1:]; command {
	case "serve":
		return serve(ctx, args, stdin, stdout)
	case "dial":
		return dial(ctx, args, stdout)
	case "dns":
		return serveDNS(ctx, args, stdout)
	case "resolve":
		return resolve(ctx, args, stdout)
	case "watch":
		return watch(ctx, args, stdin, stdout)
	default:
		return fmt.Errorf("unknown command %q\n%s", command, usage)
	}
}

func newFlags(command string) *flag.FlagSet {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprintln(flags.Output(), usage) }
	return flags
}

func serve(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	server := reach.Server{}
	flags := newFlags("serve")
	flags.StringVar(&server.Name, "name", host, "name to answer with")
	flags.Func("tcp", "TCP ports", list(&server.TCP, parsePort))
	flags.Func("udp", "UDP ports", list(&server.UDP, parsePort))
	whileStdin := flags.Bool("while-stdin", false, "end when standard input does")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *whileStdin {
		ctx = whileOpen(ctx, stdin)
	}
	return server.Serve(ctx, func() { fmt.Fprintln(stdout, "ready") })
}

func dial(ctx context.Context, args []string, stdout io.Writer) error {
	flags := newFlags("dial")
	timeout := flags.Duration("timeout", time.Second, "for each target")
	rounds := flags.Int("rounds", 1, "number of times to dial all targets")
	var until []reach.Target
	flags.Func("until", "targets; the last round is the one in which all of them answer", list(&until, reach.ParseTarget))
	// The output of a container's hook is lost, unless the hook writes it to the container's own output, /proc/1/fd/1.
	output := flags.String("output", "", "file to write to instead of standard output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	targets, err := parseTargets(flags.Args())
	if err != nil {
		return err
	}
	if *output != "" {
		file, err := os.OpenFile(*output, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		stdout = file
	}
	out := json.NewEncoder(stdout)
	for range *rounds {
		missing := len(until)
		for _, result := range reach.DialAll(ctx, targets, *timeout) {
			if err := out.Encode(result); err != nil {
				return err
			}
			if result.Outcome == reach.Open && slices.Contains(until, result.Target) {
				missing--
			}
		}
		if ctx.Err() != nil || len(until) > 0 && missing <= 0 {
			break
		}
	}
	return nil
}

func watch(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	var w reach.Watch
	flags := newFlags("watch")
	flags.DurationVar(&w.Interval, "interval", 100*time.Millisecond, "between two attempts")
	flags.DurationVar(&w.Timeout, "timeout", time.Second, "of one attempt")
	flags.Func("hold", "TCP targets to stay connected to", list(&w.Hold, reach.ParseTarget))
	if err := flags.Parse(args); err != nil {
		return err
	}
	targets, err := parseTargets(flags.Args())
	if err != nil {
		return err
	}
	w.Dial = targets

	ctx, cancel := context.WithCancel(whileOpen(ctx, stdin))
	defer cancel()
	out := json.NewEncoder(stdout)
	var mu sync.Mutex
	var failed error
	w.Report = func(r reach.Result) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(r); err != nil {
			failed = err
			cancel()
		}
	}
	w.Run(ctx)
	return failed
}

// whileOpen is a context that ends with its parent or when r does: a child that waits for its standard input does not
// outlive who started it.
func whileOpen(parent context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		_, _ = io.Copy(io.Discard, r)
		cancel()
	}()
	return ctx
}

func parseTargets(args []string) ([]reach.Target, error) {
	targets := make([]reach.Target, len(args))
	for i, arg := range args {
		target, err := reach.ParseTarget(arg)
		if err != nil {
			return nil, err
		}
		targets[i] = target
	}
	return targets, nil
}

func parsePort(s string) (uint16, error) {
	port, err := strconv.ParseUint(s, 10, 16)
	return uint16(port), err
}

// list is the flag.Func of a flag with several values between commas.
func list[T any](to *[]T, parse func(string) (T, error)) func(string) error {
	return func(value string) error {
		for s := range strings.SplitSeq(value, ",") {
			v, err := parse(s)
			if err != nil {
				return err
			}
			*to = append(*to, v)
		}
		return nil
	}
}
