// Command cluster runs a Kubernetes of several nodes on one Linux machine, from
// Go modules and a few Debian packages: each node in namespaces of its own.
// docs/development-cluster.md describes it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	// A user's $PATH may lack where Debian puts runc, nft and iptables.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		fail(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		stop()
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	os.Exit(1)
}
