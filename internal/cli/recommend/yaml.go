package recommend

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/flows"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/recommend"
	"github.com/kidoban/kidoban/internal/replay"
)

func (c *options) print(in *recommend.Input, r *recommend.Result) error {
	if c.output.Is("json") {
		return c.output.Print(c.env.Out, r, nil)
	}
	text, err := Manifest(in, r)
	if err == nil {
		_, err = c.env.Out.Write(text)
	}
	return err
}

// Manifest is the policies as YAML, with all that a reader should know in comments.
func Manifest(in *recommend.Input, r *recommend.Result) ([]byte, error) {
	var out bytes.Buffer
	comment(&out, "", "Written by kubectl kidoban recommend.")
	for _, line := range flows.Coverage(in.Coverage, in.Hidden) {
		comment(&out, "", line)
	}
	comment(&out, "", fmt.Sprintf("Proven: %s recorded connections stay allowed, and each of %d rules is needed by one.", flows.Number(r.Proof.Allowed.Connections), r.Proof.Rules))
	if len(r.Policies) == 0 {
		comment(&out, "", "There is no policy to recommend.")
	}
	for _, s := range r.Silent {
		comment(&out, "", fmt.Sprintf("%s is not isolated for %s: no traffic was seen.", s.Workload, s.Direction))
	}
	for _, p := range r.Unselectable {
		comment(&out, "", fmt.Sprintf("%s gets no policy: no label that lasts selects it alone.", p))
	}
	for _, n := range r.Notes {
		comment(&out, "", n)
	}
	decisions(&out, r.Decisions)
	for i := range r.Policies {
		out.WriteString("---\n")
		if err := writePolicy(&out, &r.Policies[i]); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

func decisions(out io.Writer, list []recommend.Decision) {
	var why recommend.Why
	for i, d := range list {
		if i == 0 {
			comment(out, "", "")
			comment(out, "", "For a decision: no rule below is for these connections.")
		}
		if d.Why != why {
			why = d.Why
			comment(out, "", fmt.Sprintf("  %s:", why))
		}
		text := fmt.Sprintf("    %s to %s %s: %s", d.FromText, d.ToText, ports(d.Protocol, d.Port), count(&d.Count))
		if d.Reason != "" {
			text += ", " + string(d.Reason)
		}
		if d.Denied {
			text += "; denied from then on"
		}
		if d.Allowed {
			text += "; allowed from then on: no rule can distinguish it"
		}
		comment(out, "", text)
	}
}

func ports(protocol string, port uint16) string {
	if port == 0 {
		return protocol
	}
	return fmt.Sprintf("%s %d", protocol, port)
}

func count(c *replay.Count) string {
	text := flows.Number(c.Connections) + " connections"
	if c.Connections == 1 {
		text = "1 connection"
	}
	if first, last := flows.Time(c.First), flows.Time(c.Last); first != last {
		return text + " from " + first + " to " + last
	}
	return text + " at " + flows.Time(c.First)
}

// comment writes one line of a comment. What comes from objects cannot end it.
func comment(out io.Writer, indent, text string) {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, text)
	fmt.Fprintln(out, strings.TrimRight(indent+"# "+text, " "))
}

// head is the part of a policy above its rules.
type head struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   metadata       `json:"metadata"`
	Spec       map[string]any `json:"spec"`
}

type metadata struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
}

func metadataOf(m *metav1.ObjectMeta) metadata {
	return metadata{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels}
}

func writePolicy(out *bytes.Buffer, p *recommend.Policy) error {
	var h head
	var rules [2][]any
	if np := p.NetworkPolicy; np != nil {
		h = head{np.APIVersion, np.Kind, metadataOf(&np.ObjectMeta), map[string]any{"podSelector": np.Spec.PodSelector, "policyTypes": np.Spec.PolicyTypes}}
		for i := range np.Spec.Ingress {
			rules[policy.Ingress] = append(rules[policy.Ingress], np.Spec.Ingress[i])
		}
		for i := range np.Spec.Egress {
			rules[policy.Egress] = append(rules[policy.Egress], np.Spec.Egress[i])
		}
	} else {
		c := p.ClusterPolicy
		h = head{c.APIVersion, c.Kind, metadataOf(&c.ObjectMeta), map[string]any{"tier": c.Spec.Tier, "priority": c.Spec.Priority, "subject": c.Spec.Subject}}
		for i := range c.Spec.Egress {
			rules[policy.Egress] = append(rules[policy.Egress], c.Spec.Egress[i])
		}
	}
	text, err := yaml.Marshal(h)
	if err != nil {
		return err
	}
	out.Write(text)
	if err := writeRules(out, "ingress", rules[policy.Ingress], p.Ingress); err != nil {
		return err
	}
	return writeRules(out, "egress", rules[policy.Egress], p.Egress)
}

// writeRules writes the rules of a direction below the spec, each with its reasons.
func writeRules(out *bytes.Buffer, name string, rules []any, reasons []recommend.Reason) error {
	if len(rules) == 0 {
		return nil
	}
	fmt.Fprintf(out, "  %s:\n", name)
	for i, rule := range rules {
		explain(out, &reasons[i])
		text, err := yaml.Marshal([]any{rule})
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			out.WriteString("  ")
			out.Write(line)
		}
	}
	return nil
}

// shownPeers is how many peers the comment of a rule has.
const shownPeers = 20

func explain(out io.Writer, r *recommend.Reason) {
	if r.DNS {
		comment(out, "  ", "DNS, always")
	}
	for i, s := range r.Traffic {
		if i == shownPeers {
			comment(out, "  ", fmt.Sprintf("and %d more", len(r.Traffic)-i))
			break
		}
		comment(out, "  ", fmt.Sprintf("%s %s: %s", s.Peer, s.Ports, count(&s.Count)))
	}
	for _, n := range r.Notes {
		comment(out, "  ", n)
	}
}

// printTightened prints what could go from policies in place.
func (c *options) printTightened(r *recommend.Tightened) error {
	if c.output.Is("json") {
		return c.output.Print(c.env.Out, r, nil)
	}
	out := c.env.Out
	if len(r.Rules) == 0 {
		comment(out, "", "Every rule of the policies in place was needed by a recorded connection.")
	}
	for _, rule := range r.Rules {
		comment(out, "", fmt.Sprintf("NetworkPolicy %s/%s, %s rule %d: %s", rule.Namespace, rule.Name, strings.ToLower(rule.Direction), rule.Index, rule.Why))
	}
	for i := range r.Policies {
		np := r.Policies[i]
		np.TypeMeta = metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"}
		text, err := yaml.Marshal(np)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
			return err
		}
	}
	return nil
}
