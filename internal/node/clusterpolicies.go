package node

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterWide is the namespace of ClusterPolicyEndpoints where they are beside PolicyEndpoints.
const clusterWide = ""

// SetClusterPolicyEndpoint takes in a ClusterPolicyEndpoint. On an error the version that is in force stays in force; if there is none, the
// rules that cannot be read are closed.
func (n *Node) SetClusterPolicyEndpoint(now time.Time, cpe *v1alpha1.ClusterPolicyEndpoint) error {
	n.begin(now)
	v, err := n.readCluster(cpe)
	return n.setVersion(types.NamespacedName{Name: cpe.Name}, v, err)
}

// DeleteClusterPolicyEndpoint takes in that a ClusterPolicyEndpoint is gone. The version that was in force goes with RemoveDeleted.
func (n *Node) DeleteClusterPolicyEndpoint(now time.Time, name string) {
	n.begin(now)
	if key := (types.NamespacedName{Name: name}); n.policies[key] != nil {
		n.move(key, deleted, nil)
	}
}

// ClusterSynced takes in that all ClusterPolicyEndpoints have arrived.
func (n *Node) ClusterSynced(now time.Time) {
	n.begin(now)
	if !n.awaitsCluster {
		return
	}
	n.awaitsCluster = false
	for key, p := range n.pods {
		n.compilePod(key, p)
	}
}

// readCluster reads a ClusterPolicyEndpoint. With an error it returns the version to enforce if no other is in force, or nil if not even the
// subject can be read.
func (n *Node) readCluster(cpe *v1alpha1.ClusterPolicyEndpoint) (*version, error) {
	namespaces, err := metav1.LabelSelectorAsSelector(&cpe.Spec.Subject.NamespaceSelector)
	if err != nil {
		return nil, fmt.Errorf("spec.subject.namespaceSelector: %w", err)
	}
	pods, err := metav1.LabelSelectorAsSelector(&cpe.Spec.Subject.PodSelector)
	if err != nil {
		return nil, fmt.Errorf("spec.subject.podSelector: %w", err)
	}
	v := &version{namespaces: namespaces, selector: pods, object: &cpe.ObjectMeta}
	v.policy, err = policy.FromClusterPolicyEndpoint(cpe, n.opts.SharedNamespace)
	if err == nil {
		v.strict, err = policy.FromClusterPolicyEndpointStrict(cpe, n.opts.SharedNamespace)
	}
	if err != nil {
		v.policy = policy.ClusterFailClosed(cpe, n.opts.SharedNamespace, policy.Allow)
		v.strict = policy.ClusterFailClosed(cpe, n.opts.SharedNamespace, policy.Deny)
	}
	if v.policy.Tier != policy.TierBaseline {
		v.strict = v.policy // it differs in nothing
	}
	v.groups = v.policy.Groups()
	return v, err
}
