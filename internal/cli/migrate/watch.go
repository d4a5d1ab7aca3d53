package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// What either engine does with a flow.
const (
	allows  = "allows"
	denies  = "denies"
	unknown = "unknown"
)

// Flow is a kind of flows that Calico and kidoban judge differently, or may.
type Flow struct {
	Calico    string    `json:"calico"`
	Kidoban   string    `json:"kidoban"`
	Direction string    `json:"direction"`
	From      string    `json:"from"`
	To        string    `json:"to"`
	Because   string    `json:"because"` // of kidoban's verdict, or of Calico's
	Count     uint64    `json:"count"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// agentEvent is an event, or what happened to a stream of them.
type agentEvent struct {
	agentapi.StreamedEvent
	// lost is why a node was not seen for a while; empty for an event.
	lost string
}

type watcher struct {
	env     *command.Env
	client  client.Client
	silence time.Duration
	in      *input
	// before is what Calico means, after what kidoban does.
	before, after *calico.Judge
	report        *Comparison
	// look at the clock this often.
	look time.Duration

	pods          map[netip.Addr]*calico.Endpoint
	named         map[string]*calico.Endpoint  // the same by namespace/name: an address may have been another pod's
	accountLabels map[string]map[string]string // by namespace/name
	refreshed     time.Time
}

// refreshEvery is how old the pods may be that an unknown one is looked up in, refreshAlways how old they may be at all: addresses go from
// pod to pod, and labels change.
const (
	refreshEvery  = 10 * time.Second
	refreshAlways = time.Minute
)

// accounts are the service accounts' labels, by which Calico's policies may select.
func (w *watcher) accounts(ctx context.Context) error {
	var list corev1.ServiceAccountList
	if err := w.client.List(ctx, &list); err != nil {
		return fmt.Errorf("list ServiceAccounts: %w", err)
	}
	w.accountLabels = map[string]map[string]string{}
	for i := range list.Items {
		w.accountLabels[list.Items[i].Namespace+"/"+list.Items[i].Name] = list.Items[i].Labels
	}
	return nil
}

// agents that there are, and are not.
func (w *watcher) agents(a *agents.Agents, nodes []corev1.Node) {
	for i := range nodes {
		if name := nodes[i].Name; a.On(name) == nil {
			w.unseen("node %s: no agent of kidoban runs there", name)
		}
	}
}

// unseen notes what keeps the report from being whole, once.
func (w *watcher) unseen(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.report.Unseen, text) {
		w.report.Unseen = append(w.report.Unseen, text)
	}
}

// watch until nothing differed for the time asked, or the context ends.
func (w *watcher) watch(ctx context.Context, follow func(context.Context, chan<- agentEvent)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan agentEvent, 1024)
	follow(ctx, events)
	w.report.Since = w.env.Now()
	w.report.Silent = w.report.Since
	whole := len(w.report.Unseen) == 0
	ticker := time.NewTicker(w.look)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			w.finish(false)
			return nil
		case e := <-events:
			if e.lost != "" || e.Missed > 0 {
				w.report.Silent = w.env.Now() // its content is not known
			}
			if e.lost != "" {
				w.unseen("%s", e.lost)
				continue
			}
			if e.Missed > 0 {
				w.unseen("node %s: %d events were lost", e.Node, e.Missed)
			}
			differs, err := w.event(ctx, &e.Event)
			if err != nil {
				return err
			}
			if differs {
				w.report.Silent = w.env.Now()
			}
		case <-ticker.C:
			if w.env.Now().Sub(w.report.Silent) >= w.silence {
				w.finish(whole)
				return nil
			}
		}
	}
}

// finish the report. zero: nothing differed for the time asked, on all nodes.
func (w *watcher) finish(zero bool) {
	r := w.report
	r.Until = w.env.Now()
	slices.SortFunc(r.Traffic.Flows, func(a, b *Flow) int { return cmp.Or(-cmp.Compare(a.Count, b.Count), a.First.Compare(b.First)) })
	r.Same = zero && r.Policies != nil && r.Policies.Differing == 0 && len(r.NotCompared) == 0
	if len(r.NotCompared) > 0 {
		w.unseen("what the policies of Calico's that cannot be judged here deny or allow")
	}
	w.unseen("flows that Calico denies and kidoban allows, of pods whose agents do not log allowed flows (--enable-policy-event-logs=all), and of pods that no NetworkPolicy isolates: only the comparison of policies knows them")
	w.unseen("traffic that is not forwarded: between a pod and its own node, or between nodes; neither engine's policies about pods are asked")
}

// event judges what an event is about by Calico's policies. It reports whether the verdicts differ, or may.
func (w *watcher) event(ctx context.Context, e *agentapi.Event) (bool, error) {
	w.report.Traffic.Events++
	if e.Unlisted || !e.Source.IP.IsValid() || !e.Destination.IP.IsValid() {
		if e.Verdict == agentapi.VerdictAccept {
			return false, nil
		}
		return true, w.add(e, unknown, denies, "too many different flows to list them, or packets that cannot be read")
	}
	if err := w.refresh(ctx, e.Source, e.Destination); err != nil {
		return false, err
	}
	source, destination := w.endpoint(e.Source), w.endpoint(e.Destination)
	protocol, _ := policy.ParseProtocol(e.Protocol)
	traffic := calico.Traffic{Protocol: protocol, Port: e.Destination.Port, Target: destination.Pod}
	if !traffic.Protocol.HasPorts() {
		traffic.Port = 0
	}
	calicos, by := allows, ""
	for _, d := range policy.Directions {
		self, peer := destination, source
		if d == policy.Egress {
			self, peer = source, destination
		}
		if v := w.before.Evaluate(d, self, peer, traffic); !w.before.Certain(d, self) {
			calicos, by = unknown, "a policy of Calico's about this pod cannot be judged here"
		} else if !v.Allowed && calicos == allows {
			calicos, by = denies, v.By
		}
	}
	if e.Verdict == agentapi.VerdictAccept {
		// The other direction may still refuse it.
		if calicos != denies || !w.kidobanAllows(source, destination, traffic) {
			w.report.Traffic.Agreed++
			return false, nil
		}
		return true, w.add(e, calicos, allows, "Calico: "+by)
	}
	if calicos == denies {
		w.report.Traffic.Agreed++
		return false, nil
	}
	return true, w.add(e, calicos, denies, because(e))
}

func (w *watcher) kidobanAllows(source, destination *calico.Endpoint, t calico.Traffic) bool {
	return w.after.Evaluate(policy.Egress, source, destination, t).Allowed && w.after.Evaluate(policy.Ingress, destination, source, t).Allowed
}

func because(e *agentapi.Event) string {
	switch {
	case e.Policy != nil:
		return e.Policy.PolicyRef.String()
	case len(e.IsolatedBy) > 0:
		return "no rule of " + e.IsolatedBy[0].String()
	}
	return e.Reason
}

// add an event to the flows of its kind.
func (w *watcher) add(e *agentapi.Event, calicos, kidobans, because string) error {
	f := &Flow{Calico: calicos, Kidoban: kidobans, Direction: e.Direction, From: w.name(e.Source), To: w.name(e.Destination), Because: because, Count: e.Count, First: e.Time, Last: e.Time}
	if e.Destination.Port != 0 {
		f.To += fmt.Sprintf(" %s %d", e.Protocol, e.Destination.Port)
	} else if e.Protocol != "" {
		f.To += " " + e.Protocol
	}
	for _, o := range w.report.Traffic.Flows {
		if o.Calico == f.Calico && o.Kidoban == f.Kidoban && o.Direction == f.Direction && o.From == f.From && o.To == f.To && o.Because == f.Because {
			o.Count += f.Count
			o.Last = f.Last
			return nil
		}
	}
	w.report.Traffic.Flows = append(w.report.Traffic.Flows, f)
	_, err := fmt.Fprintf(w.env.ErrOut, "%s Calico %s, kidoban %s: %s from %s to %s (%s)\n", e.Time.Local().Format(time.TimeOnly), calicos, kidobans, e.Direction, f.From, f.To, because)
	return err
}

func (w *watcher) name(e agentapi.Endpoint) string {
	switch {
	case e.Workload != nil:
		return e.Namespace + "/" + e.Workload.Name
	case e.Pod != "":
		return e.Namespace + "/" + e.Pod
	case !e.IP.IsValid():
		return "?"
	}
	if known := w.pods[e.IP]; known != nil && known.Pod != nil {
		return known.Pod.Namespace + "/" + known.Pod.Name
	}
	return e.IP.String()
}

// endpoint of an event: the pod that its agent names, or the one that has the address.
func (w *watcher) endpoint(e agentapi.Endpoint) *calico.Endpoint {
	a := e.IP.Unmap()
	if known := w.named[e.Namespace+"/"+e.Pod]; known != nil {
		at := *known
		at.Addr = a
		return &at
	}
	if known := w.pods[a]; known != nil {
		return known
	}
	return &calico.Endpoint{Addr: a}
}

func (w *watcher) knows(e agentapi.Endpoint) bool {
	if e.Pod != "" {
		return w.named[e.Namespace+"/"+e.Pod] != nil
	}
	return w.pods[e.IP.Unmap()] != nil
}

// refresh the pods where one is not known; after that its address is no pod's, for a while.
func (w *watcher) refresh(ctx context.Context, ends ...agentapi.Endpoint) error {
	known := !slices.ContainsFunc(ends, func(e agentapi.Endpoint) bool { return !w.knows(e) })
	if age := w.env.Now().Sub(w.refreshed); !w.refreshed.IsZero() && (age < refreshEvery || known && age < refreshAlways) {
		return nil
	}
	var pods corev1.PodList
	var namespaces corev1.NamespaceList
	if err := errors.Join(w.client.List(ctx, &pods), w.client.List(ctx, &namespaces)); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("list pods and namespaces: %w", err)
	}
	labels := map[string]map[string]string{}
	for i := range namespaces.Items {
		labels[namespaces.Items[i].Name] = namespaces.Items[i].Labels
	}
	if w.pods == nil {
		// pods that have ended stay known: events may be about them yet
		w.pods, w.named = map[netip.Addr]*calico.Endpoint{}, map[string]*calico.Endpoint{}
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if !policy.IsPeer(p) {
			continue
		}
		for _, a := range policy.PodAddresses(p) {
			known := &calico.Endpoint{Addr: a, Pod: p, NamespaceLabels: labels[p.Namespace], AccountLabels: w.accountLabels[p.Namespace+"/"+cmp.Or(p.Spec.ServiceAccountName, "default")]}
			w.pods[a], w.named[p.Namespace+"/"+p.Name] = known, known
		}
	}
	w.refreshed = w.env.Now()
	return nil
}
