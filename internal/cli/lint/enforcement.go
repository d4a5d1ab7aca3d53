package lint

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// enforcement finds policies that their label puts under audit, and labels that mean nothing.
func (l *linter) enforcement() {
	const path = "metadata.labels[" + v1alpha1.LabelEnforcement + "]"
	look := func(object string, m *metav1.ObjectMeta) {
		if policy.IsLabelledAudit(m.Labels) {
			l.found(Info, object, path, "Remove the label, or set it to "+v1alpha1.LabelledEnforce+", to enforce the policy.",
				"the policy is audited: it isolates no pod and denies nothing")
		} else if policy.CheckEnforcement(m.Labels) != nil {
			l.found(Warning, object, path, "Set it to "+v1alpha1.LabelledAudit+" or "+v1alpha1.LabelledEnforce+", or remove it.",
				"%q means nothing here, so the policy is enforced", m.Labels[v1alpha1.LabelEnforcement])
		}
	}
	for i := range l.cluster.Policies {
		look(object(&l.cluster.Policies[i]), &l.cluster.Policies[i].ObjectMeta)
	}
	for i := range l.cluster.ClusterPolicies {
		look(model.Describe(model.ClusterPolicyKind, &l.cluster.ClusterPolicies[i]), &l.cluster.ClusterPolicies[i].ObjectMeta)
	}
}
