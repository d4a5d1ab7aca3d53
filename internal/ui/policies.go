package ui

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// Policy is a policy of any kind, in the list of all.
type Policy struct {
	// ID is "Kind namespace/name", or "Kind name".
	ID        string `json:"id"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Tier      string `json:"tier"`
	Priority  *int32 `json:"priority,omitempty"`
	Audit     bool   `json:"audit,omitempty"`
	// Ingress and Egress are the nodes, by index, whose pods it selects in the direction, and how many rules it has there.
	Ingress Selected `json:"ingress"`
	Egress  Selected `json:"egress"`
	// Source is the file and line where it was read.
	Source string `json:"source,omitempty"`
}

// Selected is what a policy has in one direction.
type Selected struct {
	Nodes []int `json:"nodes,omitempty"`
	Rules int   `json:"rules"`
	// Isolates is false where the policy does not apply to the direction.
	Isolates bool `json:"isolates"`
}

// PolicyDetail is one policy with its rules.
type PolicyDetail struct {
	Policy
	Rules []PolicyRule `json:"rules"`
	YAML  string       `json:"yaml"`
}

// PolicyRule is a rule of a policy.
type PolicyRule struct {
	Path   string `json:"path"`
	Name   string `json:"name,omitempty"`
	Action string `json:"action"`
	YAML   string `json:"yaml"`
}

func (s *Server) policies(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	return map[string]any{"policies": snap.list()}, nil
}

func (s *Server) policy(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	id := r.URL.Query().Get("id")
	list := snap.list()
	at := slices.IndexFunc(list, func(p Policy) bool { return p.ID == id })
	if at < 0 {
		return nil, notFound("%s is not in the cluster any more", id)
	}
	return &PolicyDetail{Policy: list[at], Rules: snap.rules(id), YAML: snap.yaml(id)}, nil
}

// policyID is how the page knows a policy: by kind, and by namespace/name or name.
func policyID(kind, name string) string { return cmp.Or(kind, "NetworkPolicy") + " " + name }

// list of all policies, in the order in which they are evaluated.
func (s *snapshot) list() []Policy {
	c := s.cluster
	out := []Policy{}
	e := model.NewEvaluator(c.EnforceAudited())
	subjects := map[string][]int{}
	byNamespace := map[string][]*model.Pod{}
	for _, pod := range c.Distinct() {
		byNamespace[pod.Namespace] = append(byNamespace[pod.Namespace], pod)
		if at, ok := s.byObject[pod.Workload]; ok {
			for _, p := range e.ClusterPoliciesOf(pod) {
				subjects[p.Name] = append(subjects[p.Name], at)
			}
		}
	}
	for i := range c.ClusterPolicies {
		p := &c.ClusterPolicies[i]
		one := Policy{
			ID: policyID(model.ClusterPolicyKind, p.Name), Kind: model.ClusterPolicyKind, Name: p.Name, Tier: model.TierOf(p).String(), Priority: &p.Spec.Priority,
			Audit: policy.IsLabelledAudit(p.Labels),
		}
		for _, d := range policy.Directions {
			if n := len(model.ClusterRules(d, p)); n > 0 {
				*one.of(d) = Selected{Nodes: unique(subjects[p.Name]), Rules: n, Isolates: true}
			}
		}
		one.Source = s.position(one.ID)
		out = append(out, one)
	}
	for i := range c.Policies {
		p := &c.Policies[i]
		one := Policy{
			ID: policyID("", p.Namespace+"/"+p.Name), Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name, Tier: policy.TierNetworkPolicy.String(),
			Audit: policy.IsLabelledAudit(p.Labels),
		}
		for _, d := range policy.Directions {
			if !netpol.PolicyTypes(p)[d] {
				continue
			}
			var nodes []int
			for _, pod := range byNamespace[p.Namespace] {
				if at, ok := s.byObject[pod.Workload]; ok && netpol.Selects(d, p, &pod.Pod) {
					nodes = append(nodes, at)
				}
			}
			*one.of(d) = Selected{Nodes: unique(nodes), Rules: len(netpol.Rules(d, p)), Isolates: true}
		}
		one.Source = s.position(one.ID)
		out = append(out, one)
	}
	order := map[string]int{policy.TierAdmin.String(): 0, policy.TierNetworkPolicy.String(): 1, policy.TierBaseline.String(): 2}
	slices.SortStableFunc(out, func(a, b Policy) int {
		priority := func(p Policy) int32 {
			if p.Priority == nil {
				return 0
			}
			return *p.Priority
		}
		return cmp.Or(cmp.Compare(order[a.Tier], order[b.Tier]), cmp.Compare(priority(a), priority(b)), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (p *Policy) of(d policy.Direction) *Selected {
	if d == policy.Ingress {
		return &p.Ingress
	}
	return &p.Egress
}

func unique(list []int) []int {
	slices.Sort(list)
	return slices.Compact(list)
}

func (s *snapshot) position(id string) string {
	at, ok := s.cluster.Position(id, "")
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s:%d", at.File, at.Line)
}

// object of an ID: one of the two is nil.
func (s *snapshot) object(id string) (*networkingv1.NetworkPolicy, *cnp.ClusterNetworkPolicy) {
	kind, name, _ := strings.Cut(id, " ")
	if kind == model.ClusterPolicyKind {
		for i := range s.cluster.ClusterPolicies {
			if s.cluster.ClusterPolicies[i].Name == name {
				return nil, &s.cluster.ClusterPolicies[i]
			}
		}
	}
	for i := range s.cluster.Policies {
		if p := &s.cluster.Policies[i]; kind == "NetworkPolicy" && p.Namespace+"/"+p.Name == name {
			return p, nil
		}
	}
	return nil, nil
}

// yaml of a policy, without what the API server adds to it.
func (s *snapshot) yaml(id string) string {
	kept := func(o metav1.Object) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: o.GetName(), Namespace: o.GetNamespace(), Labels: o.GetLabels()}
	}
	np, cluster := s.object(id)
	var text []byte
	switch {
	case np != nil:
		text, _ = yaml.Marshal(map[string]any{"apiVersion": networkingv1.SchemeGroupVersion.String(), "kind": "NetworkPolicy", "metadata": kept(np), "spec": np.Spec})
	case cluster != nil:
		text, _ = yaml.Marshal(map[string]any{"apiVersion": cnp.GroupVersion.String(), "kind": model.ClusterPolicyKind, "metadata": kept(cluster), "spec": cluster.Spec})
	}
	return string(text)
}

// rules of a policy, ingress first.
func (s *snapshot) rules(id string) []PolicyRule {
	out := []PolicyRule{}
	np, cluster := s.object(id)
	for _, d := range policy.Directions {
		field := strings.ToLower(d.String())
		switch {
		case np != nil:
			for i := range netpol.Rules(d, np) {
				rule := PolicyRule{Path: fmt.Sprintf("spec.%s[%d]", field, i), Action: policy.Allow.String()}
				if d == policy.Egress {
					rule.YAML = text(np.Spec.Egress[i])
				} else {
					rule.YAML = text(np.Spec.Ingress[i])
				}
				out = append(out, rule)
			}
		case cluster != nil:
			for i, r := range model.ClusterRules(d, cluster) {
				rule := PolicyRule{Path: fmt.Sprintf("spec.%s[%d]", field, i), Name: r.Name, Action: string(r.Action)}
				if d == policy.Egress {
					rule.YAML = text(cluster.Spec.Egress[i])
				} else {
					rule.YAML = text(cluster.Spec.Ingress[i])
				}
				out = append(out, rule)
			}
		}
	}
	return out
}

func text(rule any) string {
	out, _ := yaml.Marshal(rule)
	return string(out)
}
