package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	kind := flag.String("kind", onCluster, "Run the blocks of this kind: "+strings.Join(kinds, ", ")+".")
	step := flag.Bool("step", false, "Print the heading of each section that has such blocks, and wait for a line on standard input before they run.")
	root := flag.String("root", ".", "Root of the repository.")
	show := flag.Bool("show", false, "Show what the blocks print.")
	timeout := flag.Duration("timeout", time.Minute, "For all of them.")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	r := runner{out: os.Stdout, root: *root, kind: *kind, show: *show, env: os.Environ()}
	if *step {
		r.next = bufio.NewReader(os.Stdin)
	}
	if err := r.runAll(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

// runner runs the blocks of a kind.
type runner struct {
	out        io.Writer
	root, kind string
	show       bool
	env        []string
	next       *bufio.Reader // has a line for each section; nil: sections follow each other at once
}

// runAll runs all blocks of the kind. It goes on after one that fails, with the next page.
func (r *runner) runAll(ctx context.Context) error {
	all, err := pages(r.root)
	if err != nil {
		return err
	}
	var errs []error
	n := 0
	for _, p := range all {
		section := ""
		for _, b := range p.blocks {
			if b.kind != r.kind {
				continue
			}
			n++
			if section != b.section {
				section = b.section
				if err := r.await(&b); err != nil {
					return errors.Join(append(errs, err)...)
				}
			}
			start := time.Now()
			printed, err := b.run(ctx, r.root, r.env)
			fmt.Fprintf(r.out, "%5.1fs  %s:%d\n", time.Since(start).Seconds(), b.page, b.line)
			if r.show {
				fmt.Fprintln(r.out, printed)
			}
			if err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if n == 0 {
		errs = append(errs, fmt.Errorf("no page has a block of the kind %q", r.kind))
	}
	return errors.Join(errs...)
}

// await prints the section of a block, and waits until it may begin.
func (r *runner) await(b *block) error {
	if r.next == nil {
		return nil
	}
	fmt.Fprintf(r.out, "section %s: %s\n", b.page, b.section)
	if _, err := r.next.ReadString('\n'); err != nil {
		return fmt.Errorf("%s: nothing starts the section %q: %w", b.page, b.section, err)
	}
	return nil
}
