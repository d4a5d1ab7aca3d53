package migrate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/migrate/calico/proof"
)

// Comparison is what compare says.
type Comparison struct {
	// Policies: Calico's, with Kubernetes' own, against Kubernetes' alone; nil where they could not be compared. NotCompared are those
	// of Calico's that cannot be judged here.
	Policies    *proof.Report    `json:"policies,omitempty"`
	NotCompared []calico.Problem `json:"notCompared,omitempty"`
	Traffic     Traffic          `json:"traffic"`
	// Watched since, until, and since when without a difference.
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"`
	Silent time.Time `json:"silentSince"`
	// Unseen is what keeps this from being a whole answer.
	Unseen []string `json:"unseen,omitempty"`
	// Same: all policies were compared and mean the same, and no flow differed for the time asked.
	Same bool `json:"same"`
}

// Traffic is what the agents' events come to.
type Traffic struct {
	// Events that were looked at.
	Events int `json:"events"`
	// Flows that differ, by kind.
	Flows []*Flow `json:"flows"`
	// Agreed is how many events both judge the same.
	Agreed int `json:"agreed"`
}

// shortest time without a difference that says anything: an agent tells of flows that go on once each --event-interval, by default 30 s.
const shortest = time.Minute

func newCompare(env *command.Env) *cobra.Command {
	var duration, timeout time.Duration
	var namespace string
	cmd := &cobra.Command{
		Use:   "compare [--for 10m]",
		Short: "Compare with a running Calico: policies, and flows as they happen",
		Long: `Compare kidoban, in audit mode, with the Calico that runs beside it, in two ways.

Policies: Calico's verdicts by its policies and by Kubernetes' NetworkPolicies, against kidoban's by the NetworkPolicies and the ClusterNetworkPolicies that convert wrote alone, over
every class of pods, addresses and ports that their terms tell apart. Both directions are compared: flows that kidoban would deny, and flows that
it would allow.

Traffic: the agents' events of all nodes. Each flow that kidoban denies, or would deny in audit mode, is evaluated by Calico's policies too; so is
each that kidoban allows and logs (agents with --enable-policy-event-logs=all).

It runs until no flow differed for the time of --for; each flow that differs starts that time again. Interrupt it for the result so far.

The report lists what cannot be seen. kidoban decides before Calico, so a flow's event does not contain Calico's verdict: that is computed from
Calico's policies. A flow that kidoban allows has an event only where agents log all flows, and never for pods that no NetworkPolicy isolates.`,
		Example: `  kubectl kidoban migrate calico compare --for 10m

  # In a pipeline
  kubectl kidoban migrate calico compare --for 1h --timeout 8h -o json > compare.json`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"Comparison": Comparison{}})
	cmd.Flags().DurationVar(&duration, "for", 10*time.Minute, "End when no flow differed for this long; a minute at least, and longer than the agents' --event-interval.")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "End after this long whatever there is. Default: never.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if duration < shortest {
			return fmt.Errorf("--for %s: give %s or more: agents sum up flows of one kind for half a minute", duration, shortest)
		}
		c, err := env.Client()
		if err != nil {
			return err
		}
		find := func(ctx context.Context) (*agents.Agents, []corev1.Node, error) {
			var nodes corev1.NodeList
			a, err := agents.Connect(ctx, env, c, namespace)
			if err != nil {
				return nil, nil, err
			}
			if err := c.List(ctx, &nodes); err != nil {
				return nil, nil, fmt.Errorf("list nodes: %w", err)
			}
			return a, nodes.Items, nil
		}
		a, nodes, err := find(cmd.Context())
		if err != nil {
			return err
		}
		w, err := newWatcher(cmd.Context(), env, c, duration)
		if err != nil {
			return err
		}
		w.agents(a, nodes)
		ctx := cmd.Context()
		if timeout > 0 {
			var stop context.CancelFunc
			ctx, stop = context.WithTimeout(ctx, timeout)
			defer stop()
		}
		if err := w.watch(ctx, func(ctx context.Context, events chan<- agentEvent) { newFollower(find, events).follow(ctx, a) }); err != nil {
			return err
		}
		if err := output.Print(env.Out, w.report, func(out io.Writer) { w.report.write(out, env.Paint()) }); err != nil {
			return err
		}
		return command.Yes(w.report.Same)
	}
	return cmd
}

// newWatcher compares the policies, and is ready for events.
func newWatcher(ctx context.Context, env *command.Env, c client.Client, duration time.Duration) (*watcher, error) {
	in, err := readLive(ctx, c)
	if err != nil {
		return nil, err
	}
	check := &Check{Kinds: map[string]int{}}
	g := &gatherer{ctx: ctx, client: c, check: check}
	for _, step := range []func() error{g.daemonSets, g.installation, g.felix} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	if g.ebpf {
		return nil, errors.New("calico runs in eBPF mode, whose packets never reach the hook where kidoban judges: nothing can be compared until it is off (migrate calico check)")
	}
	in.kubernetes(func(*networkingv1.NetworkPolicy) bool { return true })
	w := &watcher{env: env, client: c, silence: duration, look: time.Second, report: &Comparison{}}
	if err := w.policies(ctx, in); err != nil {
		return nil, err
	}
	return w, w.accounts(ctx)
}

// policies compares what is written.
func (w *watcher) policies(ctx context.Context, in *input) error {
	w.in = in
	namespaces := in.namespaces()
	w.before = calico.NewJudge(in.set, namespaces)
	w.after = calico.NewJudge(&calico.Set{Kubernetes: in.set.Kubernetes, Cluster: in.set.Cluster}, namespaces)
	w.report.NotCompared = append(slices.Clone(w.before.Problems), in.notOf(w.before.Problems)...)
	before := in.set.Without(func(p *calico.Policy) bool {
		return slices.ContainsFunc(w.before.Problems, func(q calico.Problem) bool { return q.Object == p.String() })
	}, in.set.Kubernetes)
	report, err := proof.Compare(ctx, before, &calico.Set{Kubernetes: in.set.Kubernetes, Cluster: in.set.Cluster}, proof.Options{Namespaces: namespaces})
	if err != nil && ctx.Err() == nil { // traffic can be compared all the same
		w.unseen("the policies are not compared: %v", err)
		return nil
	}
	w.report.Policies = report
	return err
}

func (c *Comparison) write(out io.Writer, p command.Paint) {
	fmt.Fprintf(out, "%s\n", p.Text(command.Bold, "Policies"))
	switch {
	case c.Policies == nil:
		fmt.Fprintf(out, "  not compared\n")
	case c.Policies.Differing == 0:
		fmt.Fprintf(out, "  %s: all %d classes of flows in %d namespaces are judged the same\n", p.Text(command.Green, "same"), c.Policies.Flows, c.Policies.Namespaces)
	default:
		fmt.Fprintf(out, "  %s: %d of %d classes of flows in %d namespaces, as\n", p.Text(command.Red, "different"), c.Policies.Differing, c.Policies.Flows, c.Policies.Namespaces)
		writeDifferences(out, p, "Calico", "kidoban", c.Policies.Differences)
	}
	if len(c.NotCompared) > 0 {
		fmt.Fprintf(out, "  not compared, because it cannot be judged here:\n")
		writeProblems(out, p, command.Yellow, c.NotCompared)
	}
	fmt.Fprintf(out, "\n%s, %s to %s\n", p.Text(command.Bold, "Traffic"), c.Since.Format(time.TimeOnly), c.Until.Format(time.TimeOnly))
	fmt.Fprintf(out, "  %d events, of which both judge %d the same; no flow differed for %s\n", c.Traffic.Events, c.Traffic.Agreed, c.Until.Sub(c.Silent).Round(time.Second))
	if len(c.Traffic.Flows) > 0 {
		t := &command.Table{Paint: p}
		t.Head("CALICO", "KIDOBAN", "DIRECTION", "FROM", "TO", "BECAUSE", "COUNT", "LAST")
		for _, f := range c.Traffic.Flows {
			row := command.Plain(f.Calico, f.Kidoban, f.Direction, f.From, f.To, f.Because, fmt.Sprint(f.Count), f.Last.Format(time.TimeOnly))
			row[1].SGR = map[string]string{denies: command.Red, allows: command.Alarm}[f.Kidoban]
			t.Add(row...)
		}
		t.Write(out)
	}
	if len(c.Unseen) > 0 {
		fmt.Fprintf(out, "\n%s\n", p.Text(command.Bold, "Not seen"))
		for _, u := range c.Unseen {
			fmt.Fprintf(out, "  %s\n", u)
		}
	}
	if c.Same {
		fmt.Fprintf(out, "\n%s\n", p.Text(command.Green, "No difference."))
	}
}
