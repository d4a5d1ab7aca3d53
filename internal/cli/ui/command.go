// Package ui opens the map in a browser.
package ui

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/ui"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var port uint16
	var namespace string
	cmd := &cobra.Command{
		Use:   "ui",
		Short: "Show in a browser who may talk to whom, why, and what manifests would change",
		Long: `Show a map of the cluster in a browser: which workloads may talk to which by the policies, as a graph, a matrix and a table; for each
connection the decisions of both ends, with the rule that decides or the rules that nearly match; all policies in the order of
evaluation; and what workloads would gain and lose if you applied manifests. It changes nothing in the cluster.

The command prints an address, and serves the page until you stop it with Ctrl+C. The page is served on 127.0.0.1 only. The address has a
secret in it and works once: the first browser that opens it gets a cookie, and no other program gets an answer.

With an observer the map also shows what does talk: connections that were denied, and those that are allowed and never used.

With -f the map is that of manifests, and no cluster is needed.`,
		Example: `  # The live cluster
  kubectl kidoban ui

  # Manifests, before they are applied
  kubectl kidoban ui -f examples/shop -f examples/shop/policies

  # On a remote machine, with a port that ssh -L 8700:127.0.0.1:8700 forwards
  kubectl kidoban ui --port 8700`,
		Args: cobra.NoArgs,
	}
	source := command.AddSource(cmd)
	cmd.Flags().Uint16Var(&port, "port", 0, "Port on 127.0.0.1 for the browser. Default: a free one.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace, where the observer is.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		o := ui.Options{Name: name(env, source), Live: len(source.Files) == 0}
		o.Parse = func(text []byte) (*model.Cluster, error) { return parse(env, source, text) }
		cluster, err := env.Cluster(ctx, source)
		if err != nil {
			return err
		}
		o.Read = func(ctx context.Context) (*model.Cluster, error) {
			if read := cluster; read != nil { // the first time
				cluster = nil
				return read, nil
			}
			return env.Cluster(ctx, source)
		}
		if o.Live {
			found, err := connect(ctx, env, namespace)
			if found == nil && err == nil {
				fmt.Fprintf(env.ErrOut, "note: no observer in namespace %s: the map shows what may talk, and no flows\n", namespace)
			} else { // of an error the page informs, too, and asks again
				o.Observer = func(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
					return ask(ctx, env, namespace, path, query)
				}
			}
			o.InForce = func(ctx context.Context) (*ui.InForce, error) { return inForce(ctx, env, namespace) }
		}
		server, err := ui.Listen(ctx, port, o)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.Out, "Open this address in a browser. It works once.\n\n  %s\n\nCtrl+C stops the map.\n", server.URL())
		return server.Serve(ctx)
	}
	return cmd
}

// name of the cluster, or of the manifests.
func name(env *command.Env, s *command.Source) string {
	if len(s.Files) > 0 {
		return strings.Join(s.Files, " ")
	}
	config, err := env.Config.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return "cluster"
	}
	if context := *env.Config.Context; context != "" {
		return context
	}
	return config.CurrentContext
}

// parse manifests, and reject what the API server would reject.
func parse(env *command.Env, s *command.Source, text []byte) (*model.Cluster, error) {
	addressing, err := s.Addressing()
	if err != nil {
		return nil, err
	}
	m := &model.Manifests{Namespace: env.Namespace(), Addressing: addressing}
	if err := m.Read("manifests", bytes.NewReader(text)); err != nil {
		return nil, err
	}
	c, err := m.Cluster()
	if err != nil {
		return nil, err
	}
	return c, c.InvalidPolicies()
}
