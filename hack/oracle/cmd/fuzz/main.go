// Command fuzz compares what kidoban and two others say of random flows in random clusters, and exits with 1 on the first difference.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/kidoban/kidoban/hack/oracle"
)

func main() {
	flags := flag.NewFlagSet("fuzz", flag.ExitOnError) // cyclonus brings flags of ginkgo into the global one
	flows := flags.Int64("flows", 1_000_000, "flows to draw")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "where the drawing begins")
	iteration := flags.Int64("iteration", -1, "do this one iteration only, as a failure names it")
	workers := flags.Int("workers", runtime.GOMAXPROCS(0), "scenarios at the same time")
	_ = flags.Parse(os.Args[1:]) // it exits on an error
	if *flows < 1 || *workers < 1 || flags.NArg() > 0 {
		flags.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, *seed, *iteration, *flows, *workers))
}

func run(ctx context.Context, seed uint64, iteration, flows int64, workers int) int {
	if iteration >= 0 {
		stats := oracle.NewStats()
		return report(&oracle.Failure{Seed: seed, Iteration: uint64(iteration), Difference: oracle.Iterate(seed, uint64(iteration), &stats)})
	}
	start := time.Now()
	fmt.Printf("seed %d\n", seed)
	o := oracle.Options{Seed: seed, Flows: flows, Workers: workers}
	terminal := isTerminal(os.Stderr)
	if terminal {
		o.Progress = func(n int64) { fmt.Fprintf(os.Stderr, "\r%d%%  %d flows  %.0f/s ", n*100/flows, n, rate(n, start)) }
	}
	stats, failure := oracle.Run(ctx, o)
	if terminal {
		fmt.Fprintln(os.Stderr)
	}
	fmt.Printf("%s%.0f flows/s\n", stats, rate(stats.Flows, start))
	if failure != nil {
		return report(failure)
	}
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "interrupted; no difference so far")
		return 1
	}
	fmt.Println("no difference")
	return 0
}

func report(f *oracle.Failure) int {
	if f.Difference == nil {
		fmt.Println("no difference")
		return 0
	}
	fmt.Fprintln(os.Stderr, "found a difference; looking for the smallest scenario")
	f.Difference = f.Shrink()
	fmt.Fprintln(os.Stderr, f.Error())
	return 1
}

func rate(n int64, since time.Time) float64 { return float64(n) / time.Since(since).Seconds() }

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
