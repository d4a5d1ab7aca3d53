// Command kubectl-kidoban asks NetworkPolicies who reaches whom and why.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := command.NewEnv()
	code := command.ExitCode(cli.New(env).ExecuteContext(ctx), env.ErrOut)
	stop()
	os.Exit(code)
}
