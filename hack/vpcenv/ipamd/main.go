// Command ipamd stands for the Amazon VPC CNI's IPAM daemon on a node of the test cluster. It answers the CNI plugin as that daemon does,
// and gives the node the rules, route tables and NAT that its pods rely on. AWS's part, the addresses of network interfaces, it reads from a file.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "ipamd: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%q: want the path of a configuration file", args)
	}
	b, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if err := c.check(); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	if err := c.setUpNode(ctx); err != nil {
		return err
	}
	pool, err := loadPool(checkpointPath, c.Interfaces)
	if err != nil {
		return err
	}
	return serve(ctx, socketPath, &backend{config: c, pool: pool, attach: c.attach})
}
