// Command kubectl-kidoban asks NetworkPolicies who reaches whom and why.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
)

func main() {
	debug.SetGCPercent(400) // it ends soon, and reads much
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	env := command.NewEnv()
	code := command.ExitCode(cli.New(env).ExecuteContext(ctx), env.ErrOut)
	stop()
	os.Exit(code)
}
