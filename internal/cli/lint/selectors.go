package lint

import (
	"fmt"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// invalid asks the engine itself what it cannot honour.
func (l *linter) invalid() {
	r := resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 250})
	for i := range l.cluster.Namespaces {
		r.SetNamespace(l.cluster.Namespaces[i].Name, l.cluster.Namespaces[i].Labels)
	}
	for i := range l.cluster.Pods {
		r.SetPod(resolver.PodOf(&l.cluster.Pods[i].Pod))
	}
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) { r.SetPolicy(np) })
	for _, name := range r.Start(resolver.Existing{}).Endpoints {
		e, ok := r.Endpoint(name)
		if !ok {
			continue
		}
		for _, p := range e.Problems {
			if p.Reason == "UnresolvedNamedPort" {
				continue // named-port tells more
			}
			l.found(Error, "NetworkPolicy "+e.Policy.String(), "", "Correct the field; until then what it says is not in force.", "%s: %s", p.Reason, p.Message)
		}
	}
}

func (l *linter) ignoredRules() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for _, d := range policy.Directions {
			if n := len(policy.NetworkPolicyRules(d, np)); n > 0 && !policy.PolicyTypes(np)[d] {
				field := [...]string{"spec.ingress", "spec.egress"}[d]
				l.found(Error, object(np), field, fmt.Sprintf("Add %s to spec.policyTypes, or delete %s.", d, field),
					"%d rules that nobody reads: spec.policyTypes is %v, without %s", n, np.Spec.PolicyTypes, d)
			}
		}
	})
}

func (l *linter) selectsNothing() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		if len(l.selected(np)) > 0 || len(np.Spec.PodSelector.MatchLabels)+len(np.Spec.PodSelector.MatchExpressions) == 0 {
			return
		}
		if len(l.hostNetwork(np)) > 0 {
			return // told by selects-host-network
		}
		fix := "Correct the labels, or delete the policy."
		if near := l.nearLabels(np.Namespace, &np.Spec.PodSelector); near != "" {
			fix = "Correct the labels: " + near + "."
		}
		l.found(Warning, object(np), "spec.podSelector", fix, "no pod in namespace %s has these labels (%s): the policy does nothing",
			np.Namespace, metav1.FormatLabelSelector(&np.Spec.PodSelector))
	})
}

// nearLabels tells what values pods have for the labels that a selector asks for.
func (l *linter) nearLabels(namespace string, s *metav1.LabelSelector) string {
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		want, values := s.MatchLabels[key], map[string]bool{}
		for _, p := range l.podsWhere(func(p *pod) bool { return namespace == "" || p.Namespace == namespace }) {
			if v, ok := p.Labels[key]; ok {
				values[v] = true
			}
		}
		if !values[want] {
			if len(values) == 0 {
				return fmt.Sprintf("no pod there has a label %s", key)
			}
			return fmt.Sprintf("%s is %s there", key, some(values))
		}
	}
	return ""
}

func (l *linter) hostNetwork(np *networkingv1.NetworkPolicy) []*model.Pod {
	return l.podsWhere(func(p *pod) bool { return p.Spec.HostNetwork && selects(np, p) })
}

func (l *linter) selectsHostNetwork() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		if pods := l.hostNetwork(np); len(pods) > 0 {
			severity := Info
			if len(l.selected(np)) == 0 {
				severity = Warning
			}
			l.found(severity, object(np), "spec.podSelector", "Guard the node's ports by other means, or take the pods off the host's network.",
				"pods that it selects are on the host's network, as %s: policies do not apply to them", pods[0].Key())
		}
	})
}

func (l *linter) peerMatchesNothing() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
		for i := range r.Peers {
			peer := &r.Peers[i]
			if peer.IPBlock != nil || len(l.matched(np, peer)) > 0 {
				continue
			}
			at := fmt.Sprintf("%s[%d]", peersPath(d, path), i)
			if s := peer.NamespaceSelector; s != nil && !l.someNamespace(s) {
				severity, where := Warning, ""
				if l.cluster.Offline {
					severity, where = Info, " in these manifests" // it may be in the cluster
				}
				l.found(severity, object(np), at+".namespaceSelector", "Label the namespace that is meant, or select it by kubernetes.io/metadata.name.",
					"no namespace%s has these labels (%s): the peer means nobody", where, metav1.FormatLabelSelector(s))
				continue
			}
			namespace, where := np.Namespace, "in namespace "+np.Namespace
			if peer.NamespaceSelector != nil {
				namespace, where = "", "in the namespaces that the peer selects"
			}
			fix := "Correct the labels."
			if peer.PodSelector == nil {
				l.found(Info, object(np), at, "Nothing, if pods come later.", "no pod is %s: the peer means nobody yet", where)
				continue
			}
			if near := l.nearLabels(namespace, peer.PodSelector); near != "" {
				fix = "Correct the labels: " + near + "."
			}
			if peer.NamespaceSelector == nil && len(l.podsWithLabels(peer.PodSelector)) > 0 {
				fix = fmt.Sprintf("Such pods are in other namespaces (%s): add a namespaceSelector to the same peer.", l.podsWithLabels(peer.PodSelector)[0].Key())
			}
			l.found(Warning, object(np), at+".podSelector", fix, "no pod %s has these labels (%s): the peer means nobody", where, metav1.FormatLabelSelector(peer.PodSelector))
		}
	})
}

func (l *linter) podsWithLabels(s *metav1.LabelSelector) []*model.Pod {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil || selector.Empty() {
		return nil
	}
	return l.podsWhere(func(p *pod) bool { return selector.Matches(labels.Set(p.Labels)) })
}

func (l *linter) someNamespace(s *metav1.LabelSelector) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return true // told by invalid
	}
	for i := range l.cluster.Namespaces {
		if selector.Matches(labels.Set(l.cluster.Namespaces[i].Labels)) {
			return true
		}
	}
	return false
}

// selectorsOr finds two list items where one was most likely meant: they differ by a dash.
func (l *linter) selectorsOr() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
		for i := 1; i < len(r.Peers); i++ {
			a, b := &r.Peers[i-1], &r.Peers[i]
			onlyNamespaces := a.NamespaceSelector != nil && a.PodSelector == nil && b.PodSelector != nil && b.NamespaceSelector == nil
			onlyPods := a.PodSelector != nil && a.NamespaceSelector == nil && b.NamespaceSelector != nil && b.PodSelector == nil
			if !onlyNamespaces && !onlyPods {
				continue
			}
			l.found(Warning, object(np), fmt.Sprintf("%s[%d]", peersPath(d, path), i),
				"If pods of those namespaces are meant, put both selectors in one list item: take the dash before the second away.",
				"a namespaceSelector and a podSelector in two peers are OR: every pod of those namespaces, and such pods of namespace %s", np.Namespace)
		}
	})
}

func (l *linter) openPeer() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r policy.NetworkPolicyRule) {
		who := [...]string{"may come from anywhere", "may go anywhere"}[d]
		if len(r.Peers) == 0 && len(r.Ports) == 0 {
			l.found(Info, object(np), path, "Nothing, if that is meant; to refuse everything, leave the rule out.", "an empty rule: everything %s, on every port", who)
			return
		}
		for i := range r.Peers {
			s := r.Peers[i].NamespaceSelector
			if s != nil && len(s.MatchLabels)+len(s.MatchExpressions) == 0 && r.Peers[i].PodSelector == nil {
				l.found(Info, object(np), fmt.Sprintf("%s[%d].namespaceSelector", peersPath(d, path), i),
					"Nothing, if that is meant; else select namespaces by a label.", "an empty namespaceSelector means every pod of every namespace")
			}
		}
	})
}
