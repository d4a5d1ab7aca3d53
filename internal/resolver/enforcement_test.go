package resolver

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func labelled(np *networkingv1.NetworkPolicy, value string) *networkingv1.NetworkPolicy {
	out := np.DeepCopy()
	out.Labels = map[string]string{v1alpha1.LabelEnforcement: value}
	return out
}

func TestALabelDecidesAboutEnforcement(t *testing.T) {
	r := started()
	for _, tc := range []struct {
		value   string
		want    v1alpha1.Enforcement
		problem string
	}{
		{"audit", v1alpha1.EnforcementAudit, ""},
		{"enforce", v1alpha1.EnforcementEnforce, ""},
		{"Audit", v1alpha1.EnforcementEnforce, `metadata.labels[kidoban.dev/enforcement]: "Audit" is neither`},
		{"", v1alpha1.EnforcementEnforce, `metadata.labels[kidoban.dev/enforcement]: "" is neither`},
	} {
		np := labelled(named(parsePolicy(t, "{podSelector: {}}"), "shop", "p", "1"), tc.value)
		clusterPolicy := &cnp.ClusterNetworkPolicy{}
		clusterPolicy.Name, clusterPolicy.Labels = "p", np.Labels
		clusterPolicy.Spec.Tier, clusterPolicy.Spec.Subject.Namespaces = cnp.AdminTier, &np.Spec.PodSelector
		r.SetPolicy(np)
		r.SetClusterPolicy(clusterPolicy)
		e := r.endpointOf(t, "shop", "p")
		name, _ := r.ClusterEndpointName("p")
		ce, _ := r.ClusterEndpoint(name)
		if e.Spec.Enforcement != tc.want || ce.Spec.Enforcement != tc.want {
			t.Errorf("%q: %s and %s, want %s", tc.value, e.Spec.Enforcement, ce.Spec.Enforcement, tc.want)
		}
		for _, problems := range [][]Problem{e.Problems, ce.Problems} {
			switch {
			case tc.problem == "" && len(problems) == 0:
			case len(problems) == 1 && problems[0].Reason == v1alpha1.ReasonInvalidEnforcement && tc.problem != "" && strings.HasPrefix(problems[0].Message, tc.problem):
			default:
				t.Errorf("%q: problems %v, want %q", tc.value, problems, tc.problem)
			}
		}
	}
}

// The version before must not stay in place of one that is not enforced as it was.
func TestAPolicyThatDoesNotFitIsStillAuditedOrEnforcedAsItsLabelSays(t *testing.T) {
	fits := parsePolicy(t, "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}")
	for _, tc := range []struct {
		before, now string
		rules       int
		want        v1alpha1.Enforcement
	}{
		{"audit", "enforce", 0, v1alpha1.EnforcementEnforce},
		{"enforce", "audit", 0, v1alpha1.EnforcementAudit},
		{"audit", "audit", 1, v1alpha1.EnforcementAudit},
		{"enforce", "Audit", 1, v1alpha1.EnforcementEnforce},
	} {
		r := started()
		r.SetPolicy(named(labelled(fits, tc.before), "shop", "p", "1"))
		r.SetPolicy(named(labelled(oversized(t, "db"), tc.now), "shop", "p", "1"))
		if e := r.endpointOf(t, "shop", "p"); e.Spec.Enforcement != tc.want || len(e.Spec.Ingress) != tc.rules {
			t.Errorf("%s after %s: %s with %d rules, want %s with %d", tc.now, tc.before, e.Spec.Enforcement, len(e.Spec.Ingress), tc.want, tc.rules)
		}
	}
}
