// Package events shows the flow events of all nodes.
package events

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/observer"
)

// reorder is how long events of different nodes are held back to be sorted by time.
const reorder = time.Second

// New is the command.
func New(env *command.Env) *cobra.Command {
	var f filter
	var follow bool
	var since time.Duration
	var namespace string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show the flow events of all nodes, sorted by time",
		Long: `Show the flow events of the nodes' agents: connections that were denied or allowed, and by which policy. Agents keep the recent events; the
flow log has all of them. Where an observer is installed, it is asked instead of the agents: by default about the last hour.`,
		Example: `  # Connections that were denied in the last ten minutes
  kubectl kidoban events --since 10m --verdict DENY

  # What would change if audited policies were enforced
  kubectl kidoban events --verdict AUDIT

  # Watch one pod
  kubectl kidoban events -f --pod shop/backend-5d9c

  # Decisions of one policy, as JSON lines
  kubectl kidoban events -f --policy shop/default-deny -o json`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, nil)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "Continue with new events as they happen.")
	cmd.Flags().DurationVar(&since, "since", 0, "Show events that are no older than this. Default: all that agents keep; with -f the last minute.")
	cmd.Flags().StringVar(&f.policy, "policy", "", "Show decisions of this policy, also those by which it isolates: namespace/name, or the name of a ClusterNetworkPolicy.")
	cmd.Flags().StringVar(&f.pod, "pod", "", "Show flows of this pod, by namespace/name or a prefix of it.")
	cmd.Flags().StringVar(&f.verdict, "verdict", "", "Show this verdict: ACCEPT, DENY, AUDIT-DENY, AUDIT-ALLOW, or AUDIT for both of the last.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	_ = cmd.RegisterFlagCompletionFunc("policy", env.CompletePolicies(&command.Source{}))
	_ = cmd.RegisterFlagCompletionFunc("pod", env.CompletePods(&command.Source{}))
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions(verdicts, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		f.verdict = strings.ToUpper(f.verdict)
		if f.verdict != "" && !slices.Contains(verdicts, f.verdict) {
			return fmt.Errorf("--verdict %s: give ACCEPT, DENY, AUDIT-DENY, AUDIT-ALLOW or AUDIT", f.verdict)
		}
		c, err := env.Client()
		if err != nil {
			return err
		}
		if follow && since == 0 {
			since = time.Minute
		}
		p := printer{env: env, output: output, names: podNames(cmd.Context(), c)}
		f.names = p.names
		o, err := observer.Connect(cmd.Context(), env, c, namespace)
		if err != nil {
			fmt.Fprintln(env.ErrOut, "warning: asking the agents, not the observer:", err)
		}
		if o != nil {
			fmt.Fprintln(env.ErrOut, "From the observer, pod", o.Pod.Name)
			return observed(cmd.Context(), o, since, follow, f, p.print, env.ErrOut)
		}
		a, err := agents.Connect(cmd.Context(), env, c, namespace)
		if err != nil {
			return err
		}
		return stream(cmd.Context(), a, a.Open, path(since, follow), follow, f, p.print, env.ErrOut)
	}
	return cmd
}

func path(since time.Duration, follow bool) string {
	q := url.Values{}
	if since > 0 {
		q.Set(agentapi.ParamSince, since.String())
	}
	if follow {
		q.Set(agentapi.ParamFollow, "true")
	}
	if len(q) == 0 {
		return agentapi.PathEvents
	}
	return agentapi.PathEvents + "?" + q.Encode()
}

// filter is what of the events is shown.
type filter struct {
	policy, pod, verdict string
	names                map[netip.Addr]string // of pods, also of other nodes than an event's
}

// bothAudits stands for both verdicts of audits.
const bothAudits = "AUDIT"

// verdicts that --verdict takes.
var verdicts = []string{agentapi.VerdictAccept, agentapi.VerdictDeny, agentapi.VerdictAuditDeny, agentapi.VerdictAuditAllow, bothAudits}

func (f *filter) wants(e *agentapi.Event) bool {
	isVerdict := f.verdict == "" || e.Verdict == f.verdict || f.verdict == bothAudits && strings.HasPrefix(e.Verdict, bothAudits+"-")
	return isVerdict && (f.policy == "" || f.byPolicy(e)) && (f.pod == "" || f.ofPod(&e.Source) || f.ofPod(&e.Destination))
}

func (f *filter) ofPod(e *agentapi.Endpoint) bool {
	return e.Pod != "" && strings.HasPrefix(e.Namespace+"/"+e.Pod, f.pod) || strings.HasPrefix(f.names[e.IP], f.pod)
}

func (f *filter) byPolicy(e *agentapi.Event) bool {
	is := func(r agentapi.PolicyRef) bool {
		return f.policy == r.Name && r.Namespace == "" || f.policy == r.Namespace+"/"+r.Name
	}
	return e.Policy != nil && is(e.Policy.PolicyRef) || slices.ContainsFunc(e.IsolatedBy, is) || slices.ContainsFunc(e.Audited, is)
}

// opener opens an answer of an agent, as agents.Open does.
type opener func(ctx context.Context, pod *corev1.Pod, path string) (io.ReadCloser, error)

// stream the events of all agents, merged by time: those that came within reorder of each other.
func stream(ctx context.Context, a *agents.Agents, open opener, path string, follow bool, f filter, print func(*agentapi.StreamedEvent) error, errOut io.Writer) error {
	each := a.Each
	if follow {
		each = a.EachAtOnce // none of them ends
	}
	events := make(chan agentapi.StreamedEvent, 1024)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		failed = each(func(pod *corev1.Pod) error {
			err := read(ctx, open, pod, path, events)
			if err == nil && follow {
				err = fmt.Errorf("agent on node %s: its events are not followed any more: the stream ended, as when an agent restarts; run this again", pod.Spec.NodeName)
			}
			if err != nil && follow && ctx.Err() == nil {
				fmt.Fprintln(errOut, "warning:", err)
			}
			return err
		})
		close(events)
	})
	err := merge(events, f, follow, print)
	wg.Wait()
	if ctx.Err() != nil {
		return nil // ctrl-c is how following ends
	}
	return errors.Join(err, failed)
}

func read(ctx context.Context, open opener, pod *corev1.Pod, path string, events chan<- agentapi.StreamedEvent) error {
	body, err := open(ctx, pod, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	lines := bufio.NewReaderSize(body, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e agentapi.StreamedEvent
			if err := json.Unmarshal(line, &e); err != nil {
				return fmt.Errorf("agent on node %s: %w", pod.Spec.NodeName, err)
			}
			events <- e
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("agent on node %s: %w", pod.Spec.NodeName, err)
		}
	}
}

// merge prints events in the order of time. Without follow it waits for all.
func merge(events <-chan agentapi.StreamedEvent, f filter, follow bool, print func(*agentapi.StreamedEvent) error) error {
	var held []agentapi.StreamedEvent
	var failed error
	flush := func() {
		slices.SortStableFunc(held, func(a, b agentapi.StreamedEvent) int { return a.Time.Compare(b.Time) })
		for i := range held {
			if failed == nil {
				failed = print(&held[i])
			}
		}
		held = held[:0]
	}
	var tick <-chan time.Time
	if follow {
		ticker := time.NewTicker(reorder)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				flush()
				return failed
			}
			if f.wants(&e.Event) {
				held = append(held, e)
			}
		case <-tick:
			flush()
		}
	}
}
