// Command kubectl-kidoban explains, compares and checks NetworkPolicies.
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
	debug.SetGCPercent(400) // a short run that reads much
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Commands return their errors; nothing else is logged.
	ctrl.SetLogger(logr.Discard())
	klog.SetLogger(logr.Discard())
	env := command.NewEnv()
	rest.SetDefaultWarningHandler(rest.NewWarningWriter(env.ErrOut, rest.WarningWriterOptions{Deduplicate: true}))
	root := cli.New(env)
	code := command.ExitCode(root.ExecuteContext(ctx), env.ErrOut)
	stop()
	os.Exit(code)
}
