package migrate

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
)

// ClusterConversion is the result of a conversion to ClusterNetworkPolicies and, of policies of one namespace, NetworkPolicies.
type ClusterConversion struct {
	// ClusterPolicies and NetworkPolicies are empty where the proof failed.
	ClusterPolicies []cnp.ClusterNetworkPolicy   `json:"clusterPolicies"`
	NetworkPolicies []networkingv1.NetworkPolicy `json:"networkPolicies,omitempty"`
	Converted       []string                     `json:"converted"`
	NotConverted    []string                     `json:"notConverted"`
	// Refused is why.
	Refused []migrate.Problem `json:"refused,omitempty"`
	// Warnings are findings about the policies as they were written, Notes what is written otherwise and means the same.
	Warnings []migrate.Problem `json:"warnings,omitempty"`
	Notes    []migrate.Problem `json:"notes,omitempty"`
	// Complete is true where every policy was converted.
	Complete bool                 `json:"complete"`
	Proof    *clusterproof.Report `json:"proof"`
	// Narrower are flows to domain names that are allowed today and denied by the new policies.
	Narrower []*clusterproof.Difference `json:"narrower,omitempty"`
}

// finish the conversion: nothing is written that is not proven.
func (c *ClusterConversion) finish() {
	c.Complete = len(c.NotConverted) == 0 && len(c.Refused) == 0 && len(c.Narrower) == 0
	if c.Proof.Differing > 0 {
		c.ClusterPolicies, c.NetworkPolicies, c.Complete = nil, nil, false
	}
}

// print the conversion. source is the engine or the kind that the policies come from.
func (c *ClusterConversion) print(env *command.Env, output *command.Output, source string) error {
	if output.Is("json") {
		return output.Print(env.Out, c, nil)
	}
	c.write(env.ErrOut, env.Paint(), source)
	for i := range c.ClusterPolicies {
		o, err := withoutStatus(&c.ClusterPolicies[i])
		if err == nil {
			err = writeObject(env.Out, o)
		}
		if err != nil {
			return err
		}
	}
	return writePolicies(env.Out, c.NetworkPolicies)
}

// MarshalJSON leaves the empty status of ClusterNetworkPolicies out.
func (c *ClusterConversion) MarshalJSON() ([]byte, error) {
	type plain ClusterConversion
	out := struct {
		*plain
		ClusterPolicies []map[string]any `json:"clusterPolicies"`
	}{plain: (*plain)(c), ClusterPolicies: []map[string]any{}}
	for i := range c.ClusterPolicies {
		o, err := withoutStatus(&c.ClusterPolicies[i])
		if err != nil {
			return nil, err
		}
		out.ClusterPolicies = append(out.ClusterPolicies, o)
	}
	return json.Marshal(out)
}

func withoutStatus(p *cnp.ClusterNetworkPolicy) (map[string]any, error) {
	o, err := runtime.DefaultUnstructuredConverter.ToUnstructured(p)
	delete(o, "status")
	return o, err
}

func writeObject(out io.Writer, o map[string]any) error {
	text, err := yaml.Marshal(o)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "---\n%s", text)
	return err
}

func (c *ClusterConversion) write(out io.Writer, p command.Paint, source string) {
	for _, part := range []struct {
		title, sgr string
		list       []migrate.Problem
	}{
		{"Refused", command.Red, c.Refused},
		{"Warnings", command.Yellow, c.Warnings},
		{"Notes: these do not change the meaning", command.Dim, c.Notes},
	} {
		if len(part.list) > 0 {
			fmt.Fprintf(out, "%s\n", p.Text(command.Bold, part.title))
			writeProblems(out, p, part.sgr, part.list)
		}
	}
	if c.Proof.Differing > 0 {
		fmt.Fprintf(out, "%s: the new policies do not mean the same, in %d of %d classes of flows. Nothing is written.\n", p.Text(command.Alarm, "NOT PROVEN"), c.Proof.Differing, c.Proof.Flows)
		writeClusterDifferences(out, p, source, "the new policies", c.Proof.Differences)
		return
	}
	fmt.Fprintf(out, "%d of %d policies are converted, into %d ClusterNetworkPolicies", len(c.Converted), len(c.Converted)+len(c.NotConverted), len(c.ClusterPolicies))
	if len(c.NetworkPolicies) > 0 {
		fmt.Fprintf(out, " and %d NetworkPolicies", len(c.NetworkPolicies))
	}
	if len(c.Converted) > 0 {
		fmt.Fprintf(out, ".\nProven: %d classes of flows are judged the same", c.Proof.Flows)
	}
	fmt.Fprintln(out, ".")
	if len(c.Narrower) > 0 {
		fmt.Fprintf(out, "%s: these flows to domain names become denied, as\n", p.Text(command.Red, "NARROWER"))
		writeClusterDifferences(out, p, source, "the new policies", c.Narrower)
	}
	if len(c.NotConverted) > 0 {
		fmt.Fprintf(out, "%s: %d policies are not converted, and nothing stands for them. The proof is about the others alone.\n", p.Text(command.Red, "NOT COMPLETE"), len(c.NotConverted))
	}
	if len(c.ClusterPolicies) > 0 && slices.ContainsFunc(c.ClusterPolicies, hasNames) {
		fmt.Fprintf(out, "Some rules have domain names: they need the experimental channel of the ClusterNetworkPolicy CRD.\n")
	}
}

func hasNames(p cnp.ClusterNetworkPolicy) bool {
	return slices.ContainsFunc(p.Spec.Egress, func(r cnp.ClusterNetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(r.To, func(t cnp.ClusterNetworkPolicyEgressPeer) bool { return len(t.DomainNames) > 0 })
	})
}

// maxShown differences in text.
const maxShown = 20

func writeClusterDifferences(out io.Writer, p command.Paint, before, after string, list []*clusterproof.Difference) {
	verdict := func(v clusterproof.Verdict) string {
		sgr := command.Red
		if v.Outcome[0] == 'A' {
			sgr = command.Green
		}
		return p.Text(sgr, v.Outcome) + " by " + v.By
	}
	for i, d := range list {
		if i == maxShown {
			fmt.Fprintf(out, "  and %d more, which -o json lists\n", len(list)-i)
			break
		}
		fmt.Fprintf(out, "  %s, from %s to %s, %s\n    %s: %s\n    %s: %s\n", d.Direction, d.From, d.To, d.Traffic, before, verdict(d.Before), after, verdict(d.After))
	}
}
