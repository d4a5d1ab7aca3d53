package migrate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate/calico/leftovers"
)

// Leftovers is what clean, and check --node, say.
type Leftovers struct {
	// Running is the process of Calico's on this node; empty where there is none.
	Running string `json:"running,omitempty"`
	// Found in the order in which it is removed; what is kept has a reason.
	Found []leftovers.Leftover `json:"found"`
	// Removed: what is not kept is gone.
	Removed bool `json:"removed"`
}

func newClean(env *command.Env) *cobra.Command {
	var yes bool
	var root string
	var cidrs []string
	cmd := &cobra.Command{
		Use:   "clean [--yes]",
		Short: "Remove what Calico left on this node; without --yes only list it",
		Long: `List what Calico left on this node: rules and chains in iptables (legacy and nft), ipsets, tables of nftables, BPF programs and pins, routes and rules of routing,
links, CNI configuration and files. With --yes remove it.

It runs on the node itself, as root and in the node's network namespace, after Calico is gone: while calico-node runs it does nothing. Only what bears Calico's
marks is removed; anything that another program may have made is listed with the reason why it stays.

The exit code is 1 while there is something to remove, or to see to.`,
		Example: `  # What is there?
  sudo kubectl-kidoban migrate calico clean

  # Take it away
  sudo kubectl-kidoban migrate calico clean --yes

  # From a debugging pod on the host's network, with routes and tunnel addresses of Calico's pool
  kubectl-kidoban migrate calico clean --root /host --pod-cidr 192.168.0.0/16`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"Leftovers": Leftovers{}})
	cmd.Flags().BoolVar(&yes, "yes", false, "Remove what is listed.")
	cmd.Flags().StringVar(&root, "root", "/", "Where the node's root directory is.")
	cmd.Flags().StringArrayVar(&cidrs, "pod-cidr", nil, "A pool of Calico's: routes of BIRD's to it and addresses of tunl0 in it are Calico's; may be repeated.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		pools, err := parseCIDRs(cidrs)
		if err != nil {
			return err
		}
		node, err := newNode(root, pools)
		if err != nil {
			return err
		}
		return clean(env, output, node, yes)
	}
	return cmd
}

func newNode(root string, pools []netip.Prefix) (*leftovers.Node, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("this needs root, on the node itself (sudo kubectl-kidoban migrate calico …)")
	}
	if err := checkRoot(root); err != nil {
		return nil, err
	}
	log.SetOutput(io.Discard) // where the library for netlink tells of attributes of ipsets that it does not know
	return &leftovers.Node{Root: root, Pools: pools}, nil
}

// checkRoot reports a directory that is not a node's root: nothing of Calico's would be found there, as on a clean node.
func checkRoot(root string) error {
	for _, name := range []string{"", "etc", "proc"} {
		info, err := os.Stat(filepath.Join(root, name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != "":
			return fmt.Errorf("--root %s: there is no %s: give the directory where the node's root is mounted", root, name)
		case err != nil:
			return fmt.Errorf("--root %s: %w", root, err)
		case !info.IsDir():
			return fmt.Errorf("--root %s: %s is not a directory", root, filepath.Join(root, name))
		}
	}
	if processes, err := filepath.Glob(filepath.Join(root, "proc/[0-9]*")); err != nil || len(processes) == 0 {
		return fmt.Errorf("--root %s: no process is in its /proc, so that a running Calico could not be seen: mount the node's /proc there too", root)
	}
	return nil
}

func clean(env *command.Env, output *command.Output, node *leftovers.Node, yes bool) error {
	running, err := node.Running()
	if err != nil {
		return err
	}
	if running != "" && yes {
		return fmt.Errorf("%s runs on this node, and would make anew what is removed: take Calico off the node first", running)
	}
	list, failed := node.Find()
	report := &Leftovers{Running: running, Found: list}
	if yes {
		if err := leftovers.Remove(list); err != nil {
			failed = errors.Join(failed, err)
		} else {
			report.Removed = true
		}
	}
	if err := output.Print(env.Out, report, func(out io.Writer) { report.write(out, env.Paint()) }); err != nil {
		return err
	}
	done := report.Removed || report.toRemove() == 0
	return errors.Join(failed, yesIf(failed == nil, done && report.kept() == 0))
}

func (l *Leftovers) kept() (n int) {
	for i := range l.Found {
		if l.Found[i].Kept != "" {
			n++
		}
	}
	return n
}

func (l *Leftovers) toRemove() int { return len(l.Found) - l.kept() }

func (l *Leftovers) write(out io.Writer, p command.Paint) {
	if l.Running != "" {
		fmt.Fprintf(out, "%s runs: what it made is in use.\n", p.Text(command.Yellow, l.Running))
	}
	if len(l.Found) == 0 {
		fmt.Fprintln(out, "Nothing of Calico's is on this node.")
		return
	}
	t := &command.Table{Paint: p}
	t.Head("KIND", "NAME", "", "")
	for i := range l.Found {
		f := &l.Found[i]
		t.Add(command.Cell{Text: f.Kind}, command.Cell{Text: f.Name}, command.Cell{Text: f.Detail}, command.Cell{SGR: command.Yellow, Text: f.Kept})
	}
	t.Write(out)
	switch n := l.toRemove(); {
	case n == 0:
	case l.Removed:
		fmt.Fprintf(out, "\n%d removed.\n", n)
	default:
		fmt.Fprintf(out, "\n%d would be removed (--yes).\n", n)
	}
	if n := l.kept(); n > 0 {
		fmt.Fprintf(out, "%d stay, for the reasons given.\n", n)
	}
}
