package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	kind := flag.String("kind", onCluster, "Run the blocks of this kind: "+offline+" or "+onCluster+".")
	root := flag.String("root", ".", "Root of the repository.")
	show := flag.Bool("show", false, "Show what the blocks print.")
	timeout := flag.Duration("timeout", time.Minute, "For all of them.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if err := runAll(ctx, os.Stdout, *root, *kind, *show, os.Environ()); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// runAll runs the blocks of a kind. It goes on after one that fails, with the next page.
func runAll(ctx context.Context, out io.Writer, root, kind string, show bool, env []string) error {
	all, err := pages(root)
	if err != nil {
		return err
	}
	var errs []error
	n := 0
	for _, p := range all {
		for _, b := range p.blocks {
			if b.kind != kind {
				continue
			}
			n++
			start := time.Now()
			printed, err := b.run(ctx, root, env)
			fmt.Fprintf(out, "%5.1fs  %s:%d\n", time.Since(start).Seconds(), b.page, b.line)
			if show {
				fmt.Fprintln(out, printed)
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if n == 0 {
		errs = append(errs, fmt.Errorf("no page has a block of the kind %q", kind))
	}
	return errors.Join(errs...)
}
