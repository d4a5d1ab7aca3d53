// Command kubectl-kidoban asks NetworkPolicies who reaches whom and why.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/cli/command"
)

func main() {
	debug.SetGCPercent(400) // it ends soon, and reads much
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// What goes wrong is in the errors that commands return.
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	env := command.NewEnv()
	rest.SetDefaultWarningHandler(rest.NewWarningWriter(env.ErrOut, rest.WarningWriterOptions{Deduplicate: true}))
	code := command.ExitCode(cli.New(env).ExecuteContext(ctx), env.ErrOut)
	stop()
	os.Exit(code)
}
