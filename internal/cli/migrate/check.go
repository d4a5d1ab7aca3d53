package migrate

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// Level of a finding.
type Level string

// The levels. What blocks must be seen to before Calico goes.
const (
	Blocks Level = "blocks"
	Warns  Level = "warns"
	Tells  Level = "tells"
)

// Finding is something about the installation.
type Finding struct {
	Level Level  `json:"level"`
	About string `json:"about"`
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// Check is what check says of a cluster.
type Check struct {
	Findings []Finding `json:"findings"`
	// Kinds are the objects of Calico's that there are, by kind.
	Kinds map[string]int `json:"kinds"`
}

func (c *Check) find(level Level, about, fix, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{level, about, fmt.Sprintf(format, args...), fix})
}

// Free reports whether nothing stands in the way.
func (c *Check) Free() bool {
	for _, f := range c.Findings {
		if f.Level == Blocks {
			return false
		}
	}
	return true
}

func newCheck(env *command.Env) *cobra.Command {
	var onNode bool
	var root string
	cmd := &cobra.Command{
		Use:   "check [--node]",
		Short: "Say what of Calico's is installed, and what stands in the way",
		Long: `Say what of Calico's is installed in the cluster: how, in which mode, which of its policies there are and how many of them can be converted; and
what stands in the way of taking it away.

With --node look at this node instead, as root: what is left on it of a Calico that was removed. No cluster is asked then.`,
		Example: `  kubectl kidoban migrate calico check

  # On a node
  sudo kubectl-kidoban migrate calico check --node`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"CalicoCheck": Check{}, "Leftovers": Leftovers{}})
	cmd.Flags().BoolVar(&onNode, "node", false, "Look at this node instead of the cluster.")
	cmd.Flags().StringVar(&root, "root", "/", "With --node: where the node's root directory is.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if cmd.Flags().Changed("root") && !onNode {
			return errors.New("--root is for --node: without it the cluster is checked")
		}
		if onNode {
			return checkNode(env, output, root)
		}
		c, err := env.Client()
		if err != nil {
			return err
		}
		check, err := gather(cmd.Context(), c)
		if err != nil {
			return err
		}
		if err := output.Print(env.Out, check, func(out io.Writer) { check.write(out, env.Paint()) }); err != nil {
			return err
		}
		return command.Yes(check.Free())
	}
	return cmd
}

func checkNode(env *command.Env, output *command.Output, root string) error {
	node, err := newNode(root, nil)
	if err != nil {
		return err
	}
	running, err := node.Running()
	if err != nil {
		return err
	}
	list, failed := node.Find()
	report := &Leftovers{Running: running, Found: list}
	if err := output.Print(env.Out, report, func(out io.Writer) { report.write(out, env.Paint()) }); err != nil {
		return err
	}
	return errors.Join(failed, yesIf(failed == nil, len(list) == 0 && running == ""))
}

// yesIf there is no answer at all, the error before this one says so.
func yesIf(answered, answer bool) error {
	if !answered {
		return nil
	}
	return command.Yes(answer)
}

var levels = map[Level]string{Blocks: command.Red, Warns: command.Yellow, Tells: command.Dim}

func (c *Check) write(out io.Writer, p command.Paint) {
	t := &command.Table{Paint: p}
	t.Head("", "ABOUT", "")
	for _, level := range []Level{Blocks, Warns, Tells} {
		for _, f := range c.Findings {
			if f.Level != level {
				continue
			}
			t.Add(command.Cell{SGR: levels[level], Text: string(level)}, command.Cell{Text: f.About}, command.Cell{Text: f.Text})
			if f.Fix != "" {
				t.Add(command.Cell{}, command.Cell{}, command.Cell{Text: "→ " + f.Fix})
			}
		}
	}
	t.Write(out)
	if c.Free() {
		fmt.Fprintln(out, "\nNothing stands in the way.")
	}
}
