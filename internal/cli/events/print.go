package events

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/policy"
)

// podNames are those of addresses: an agent knows the names of its own node's pods only.
func podNames(ctx context.Context, c client.Client) map[netip.Addr]string {
	out := map[netip.Addr]string{}
	var pods corev1.PodList
	if c.List(ctx, &pods) != nil {
		return out // addresses do too
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; policy.IsPeer(p) {
			for _, a := range policy.PodAddresses(p) {
				out[a] = p.Namespace + "/" + p.Name
			}
		}
	}
	return out
}

type printer struct {
	env    *command.Env
	output *command.Output
	names  map[netip.Addr]string
}

func (p *printer) print(e *agentapi.StreamedEvent) error {
	switch {
	case p.output.Is("json"):
		return json.NewEncoder(p.env.Out).Encode(e)
	case p.output.Is("yaml"):
		text, err := yaml.Marshal(e)
		if err == nil {
			_, err = fmt.Fprintf(p.env.Out, "---\n%s", text)
		}
		return err
	}
	_, err := fmt.Fprintln(p.env.Out, p.line(e))
	return err
}

// line is "15:04:05.000 DENY Ingress shop/a → shop/b:80 TCP by … on node".
func (p *printer) line(e *agentapi.StreamedEvent) string {
	colours := map[string]string{agentapi.VerdictAccept: command.Green, agentapi.VerdictDeny: command.Red, agentapi.VerdictAuditDeny: command.Yellow, agentapi.VerdictAuditAllow: command.Yellow}
	var b strings.Builder
	paint := p.env.Paint()
	if e.Missed > 0 {
		fmt.Fprintf(&b, "%s\n", paint.Text(command.Alarm, fmt.Sprintf("%d events of node %s before this one are lost", e.Missed, e.Node)))
	}
	fmt.Fprintf(&b, "%s  %s  %s  %s → %s", e.Time.Local().Format("15:04:05.000"), paint.Text(colours[e.Verdict], fmt.Sprintf("%-10s", e.Verdict)), fmt.Sprintf("%-7s", e.Direction), p.end(e.Source, false), p.end(e.Destination, true))
	if e.Protocol != "" {
		fmt.Fprintf(&b, " %s", e.Protocol)
	}
	if o := e.OriginalDestination; o != nil {
		fmt.Fprintf(&b, " (asked %s)", netip.AddrPortFrom(o.IP, o.Port))
	}
	fmt.Fprintf(&b, "  %s", because(&e.Event))
	if m := e.NameMiss; m != nil {
		fmt.Fprintf(&b, " (%s)", nameMiss(m))
	}
	if len(e.Audited) > 0 {
		var names []string
		for _, r := range e.Audited {
			names = append(names, r.String())
		}
		fmt.Fprintf(&b, " (audited: %s)", strings.Join(names, ", "))
	}
	if e.Count > 1 {
		since := time.Duration(0)
		if e.First != nil {
			since = e.Time.Sub(*e.First).Round(time.Second)
		}
		fmt.Fprintf(&b, "  ×%d in %s", e.Count, since)
	}
	fmt.Fprintf(&b, "  %s", paint.Text(command.Dim, "on "+e.Node))
	return b.String()
}

// nameMiss is why no rule with domain names allowed the packets.
func nameMiss(m *agentapi.NameMiss) string {
	name := cmp.Or(m.Name, "a DNS name")
	switch m.Reason {
	case agentapi.NameMissExpired:
		return name + " has expired"
	case agentapi.NameMissOther:
		return "resolved as " + name
	case agentapi.NameMissUntrusted:
		return name + " was resolved by a resolver that is not trusted"
	case agentapi.NameMissHint:
		return "a hint of the HTTPS record of " + name
	case agentapi.NameMissLimit:
		return name + " has more addresses than the limit"
	}
	return m.Reason
}

func because(e *agentapi.Event) string {
	switch {
	case e.Policy != nil && e.Policy.RuleName != "":
		return fmt.Sprintf("by %s, rule %s (%s tier)", e.Policy.PolicyRef, e.Policy.RuleName, e.Tier)
	case e.Policy != nil && e.Policy.Kind != agentapi.KindNetworkPolicy && e.Tier != "":
		return fmt.Sprintf("by %s, rules %v (%s tier)", e.Policy.PolicyRef, e.Policy.Rules, e.Tier)
	case e.Policy != nil:
		return fmt.Sprintf("by %s, rules %v", e.Policy.PolicyRef, e.Policy.Rules)
	case len(e.IsolatedBy) > 0:
		var names []string
		for _, r := range e.IsolatedBy {
			names = append(names, r.Namespace+"/"+r.Name)
		}
		return "no rule of " + strings.Join(names, ", ")
	}
	return e.Reason
}

func (p *printer) end(e agentapi.Endpoint, port bool) string {
	name := "?"
	switch {
	case e.Pod != "":
		name = e.Namespace + "/" + e.Pod
	case e.IP.IsValid() && p.names[e.IP] != "":
		name = p.names[e.IP]
	case e.IP.IsValid():
		name = e.IP.String()
		if port && e.IP.Is6() {
			name = "[" + name + "]"
		}
	}
	if port && e.Port != 0 {
		return fmt.Sprintf("%s:%d", name, e.Port)
	}
	return name
}
