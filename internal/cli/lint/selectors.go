package lint

import (
	"fmt"
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/resolver"
)

// invalid reports what the API server rejects, and what the engine itself cannot honour.
func (l *linter) invalid() {
	r := resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 250})
	for i := range l.cluster.Namespaces {
		r.SetNamespace(l.cluster.Namespaces[i].Name, l.cluster.Namespaces[i].Labels)
	}
	for i := range l.cluster.Pods {
		r.SetPod(resolver.PodOf(&l.cluster.Pods[i].Pod))
	}
	objects := map[types.NamespacedName]string{}
	for i := range l.cluster.Policies {
		np := &l.cluster.Policies[i]
		objects[types.NamespacedName{Namespace: np.Namespace, Name: np.Name}] = object(np)
		errs := model.ValidatePolicy(np)
		if len(errs) == 0 {
			written, _ := application.AsWritten(np) // without the peers that stand for names
			written.Name = np.Name
			r.SetPolicy(written)
		}
		for _, err := range errs {
			l.found(Error, object(np), err.Field, "Correct the field: the API server rejects the policy.", "%s", err.ErrorBody())
		}
	}
	for _, name := range r.Start(resolver.Existing{}).Endpoints {
		e, ok := r.Endpoint(name)
		if !ok {
			continue
		}
		for _, p := range e.Problems {
			if p.Reason == "UnresolvedNamedPort" {
				continue // named-port gives more detail
			}
			l.found(Error, objects[e.Policy], "", "Correct the field; until then that part of the policy is not in force.", "%s: %s", p.Reason, p.Message)
		}
	}
}

func (l *linter) ignoredRules() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for _, d := range policy.Directions {
			if n := len(netpol.Rules(d, np)); n > 0 && !netpol.PolicyTypes(np)[d] {
				field := [...]string{"spec.ingress", "spec.egress"}[d]
				l.found(Error, object(np), field, fmt.Sprintf("Add %s to spec.policyTypes, or delete %s.", d, field),
					"%d rules without effect: spec.policyTypes is %v, without %s", n, np.Spec.PolicyTypes, d)
			}
		}
	})
}

// emptyRules finds "egress: []" and "ingress: []" that were meant to deny everything.
func (l *linter) emptyRules() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		isolates := netpol.PolicyTypes(np)
		for d, empty := range map[policy.Direction]bool{
			policy.Ingress: np.Spec.Ingress != nil && len(np.Spec.Ingress) == 0,
			policy.Egress:  np.Spec.Egress != nil && len(np.Spec.Egress) == 0,
		} {
			if !empty || isolates[d] {
				continue
			}
			field := [...]string{"ingress", "egress"}[d]
			l.found(Warning, object(np), "spec."+field, fmt.Sprintf("To deny all %s, add %s to spec.policyTypes; else delete the field.", field, d),
				"%s: [] isolates nothing, as spec.policyTypes does not name %s: all %s stays open", field, d, field)
		}
	})
}

func isEmpty(s *metav1.LabelSelector) bool { return len(s.MatchLabels)+len(s.MatchExpressions) == 0 }

func (l *linter) selectsNothing() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		if len(l.selected(np)) > 0 || isEmpty(&np.Spec.PodSelector) {
			return
		}
		if len(l.hostNetwork(np)) > 0 {
			return // selects-host-network reports it
		}
		if l.cluster.Offline && !l.hasPods(func(ns string) bool { return ns == np.Namespace }) {
			l.found(Info, object(np), "spec.podSelector", "Give the workloads' manifests too.", "these manifests have no pods of namespace %s: the selector is not checked", np.Namespace)
			return
		}
		fix := "Correct the labels, or delete the policy."
		if near := l.nearLabels(np.Namespace, &np.Spec.PodSelector); near != "" {
			fix = "Correct the labels: " + near + "."
		}
		l.found(Warning, object(np), "spec.podSelector", fix, "no pod in namespace %s has these labels (%s): the policy does nothing",
			np.Namespace, metav1.FormatLabelSelector(&np.Spec.PodSelector))
	})
}

// hasPods reports whether there are pods in namespaces for which this is true.
func (l *linter) hasPods(in func(namespace string) bool) bool {
	return slices.ContainsFunc(l.pods, func(p pod) bool { return in(p.Namespace) })
}

// nearLabels returns the values that pods have for the labels that a selector asks for.
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
			l.found(severity, object(np), "spec.podSelector", "Protect the node's ports by other means, or move the pods off the host network.",
				"it selects pods on the host network, such as %s: policies do not apply to them", pods[0].Key())
		}
	})
}

func (l *linter) peerMatchesNothing() {
	l.eachPeer(func(np *networkingv1.NetworkPolicy, at string, peer *networkingv1.NetworkPolicyPeer) {
		if peer.IPBlock != nil || len(l.matched(np, peer)) > 0 || len(l.peersOnHosts(np, peer)) > 0 {
			return
		}
		if s := peer.NamespaceSelector; s != nil && !l.someNamespace(s) {
			severity, where := Warning, ""
			if l.cluster.Offline {
				severity, where = Info, " in these manifests" // it may be in the cluster
			}
			l.found(severity, object(np), at+".namespaceSelector", "Label the namespace that is meant, or select it by kubernetes.io/metadata.name.",
				"no namespace%s has these labels (%s): the peer matches nothing", where, metav1.FormatLabelSelector(s))
			return
		}
		namespace, where := np.Namespace, "in namespace "+np.Namespace
		if peer.NamespaceSelector != nil {
			namespace, where = "", "in the namespaces that the peer selects"
		}
		switch {
		case peer.PodSelector == nil || isEmpty(peer.PodSelector):
			l.found(Info, object(np), at, "Nothing, if pods come later.", "there is no pod %s: the peer matches nothing yet", where)
			return
		case l.cluster.Offline && !l.hasPods(func(ns string) bool { return l.selectsNamespace(np, peer, ns) }):
			l.found(Info, object(np), at+".podSelector", "Give the workloads' manifests too.", "these manifests have no pods %s: the selector is not checked", where)
			return
		}
		fix := "Correct the labels."
		if near := l.nearLabels(namespace, peer.PodSelector); near != "" {
			fix = "Correct the labels: " + near + "."
		}
		if peer.NamespaceSelector == nil && len(l.podsWithLabels(peer.PodSelector)) > 0 {
			fix = fmt.Sprintf("Such pods are in other namespaces (%s): add a namespaceSelector to the same peer.", l.podsWithLabels(peer.PodSelector)[0].Key())
		}
		l.found(Warning, object(np), at+".podSelector", fix, "no pod %s has these labels (%s): the peer matches nothing", where, metav1.FormatLabelSelector(peer.PodSelector))
	})
}

// eachPeer yields the peers of the rules that count, with their paths.
func (l *linter) eachPeer(yield func(np *networkingv1.NetworkPolicy, path string, peer *networkingv1.NetworkPolicyPeer)) {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		for i := range r.Peers {
			if r.Peers[i] != (networkingv1.NetworkPolicyPeer{}) { // in an ApplicationNetworkPolicy such a one stands for names
				yield(np, fmt.Sprintf("%s[%d]", peersPath(d, path), i), &r.Peers[i])
			}
		}
	})
}

// selectsNamespace reports whether a peer is about pods of a namespace.
func (l *linter) selectsNamespace(np *networkingv1.NetworkPolicy, peer *networkingv1.NetworkPolicyPeer, namespace string) bool {
	if peer.NamespaceSelector == nil {
		return namespace == np.Namespace
	}
	selector, err := metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
	ns := l.evaluator.Namespace(namespace)
	return err == nil && ns != nil && selector.Matches(labels.Set(ns.Labels))
}

// peersOnHosts are the pods on the host network that a peer would match if they were not there.
func (l *linter) peersOnHosts(np *networkingv1.NetworkPolicy, peer *networkingv1.NetworkPolicyPeer) []*model.Pod {
	selector := labels.Everything()
	if peer.PodSelector != nil {
		var err error
		if selector, err = metav1.LabelSelectorAsSelector(peer.PodSelector); err != nil {
			return nil
		}
	}
	return l.podsWhere(func(p *pod) bool {
		return p.Spec.HostNetwork && peer.IPBlock == nil && l.selectsNamespace(np, peer, p.Namespace) && selector.Matches(labels.Set(p.Labels))
	})
}

func (l *linter) peerOnHostNetwork() {
	l.eachPeer(func(np *networkingv1.NetworkPolicy, at string, peer *networkingv1.NetworkPolicyPeer) {
		pods := l.peersOnHosts(np, peer)
		if len(pods) == 0 {
			return
		}
		const fix = "Use an ipBlock of the nodes' addresses: traffic of these pods comes from and goes to those."
		switch others := len(l.matched(np, peer)); {
		case others == 0:
			l.found(Warning, object(np), at, fix, "the pods that it names are on the host network, such as %s: no selector matches them", pods[0].Key())
		case peer.PodSelector != nil && !isEmpty(peer.PodSelector):
			l.found(Info, object(np), at, fix, "some of the pods that it names are on the host network, such as %s: no selector matches those", pods[0].Key())
		}
	})
}

// versioned labels differ between the old and the new pods of an upgrade.
var versioned = []string{
	"helm.sh/chart", "app.kubernetes.io/version", "pod-template-hash", "controller-revision-hash", "pod-template-generation",
	"controller-uid", "batch.kubernetes.io/controller-uid",
}

func (l *linter) versionedLabel() {
	report := func(np *networkingv1.NetworkPolicy, path string, s *metav1.LabelSelector) {
		if s == nil {
			return
		}
		keys := slices.Collect(maps.Keys(s.MatchLabels))
		for _, e := range s.MatchExpressions {
			if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
				keys = append(keys, e.Key)
			}
		}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			if slices.Contains(versioned, key) {
				l.found(Warning, object(np), path, "Select by labels that stay, such as app.kubernetes.io/name and app.kubernetes.io/instance.",
					"label %s changes with each release or revision: during an upgrade the selector matches the old pods or the new ones, but not both", key)
			}
		}
	}
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) { report(np, "spec.podSelector", &np.Spec.PodSelector) })
	l.eachPeer(func(np *networkingv1.NetworkPolicy, at string, peer *networkingv1.NetworkPolicyPeer) {
		report(np, at+".podSelector", peer.PodSelector)
		report(np, at+".namespaceSelector", peer.NamespaceSelector)
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
		return true // invalid reports it
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
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		for i := 1; i < len(r.Peers); i++ {
			a, b := &r.Peers[i-1], &r.Peers[i]
			onlyNamespaces := a.NamespaceSelector != nil && a.PodSelector == nil && b.PodSelector != nil && b.NamespaceSelector == nil
			onlyPods := a.PodSelector != nil && a.NamespaceSelector == nil && b.NamespaceSelector != nil && b.PodSelector == nil
			if !onlyNamespaces && !onlyPods {
				continue
			}
			namespaces, pods := a, b
			if onlyPods {
				namespaces, pods = b, a
			}
			if isEmpty(pods.PodSelector) {
				continue // all pods of the own namespace, which one peer for both would not allow
			}
			both := &networkingv1.NetworkPolicyPeer{NamespaceSelector: namespaces.NamespaceSelector, PodSelector: pods.PodSelector}
			severity, fix := Warning, "If pods of those namespaces are meant, put both selectors in one list item: remove the dash before the second."
			if len(l.matched(np, pods)) > 0 {
				if len(l.matched(np, both)) == 0 && len(l.matched(np, namespaces)) > 0 {
					continue // as one peer it would allow nothing
				}
				severity, fix = Info, "Nothing, if either is meant. "+fix
			}
			l.found(severity, object(np), fmt.Sprintf("%s[%d]", peersPath(d, path), i), fix,
				"a namespaceSelector and a podSelector in two peers are OR: every pod of those namespaces, and such pods of namespace %s", np.Namespace)
		}
	})
}

func (l *linter) openPeer() {
	l.eachRule(func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule) {
		who := [...]string{"from anywhere", "to anywhere"}[d]
		if len(r.Peers) == 0 && len(r.Ports) == 0 {
			l.found(Info, object(np), path, "Nothing, if that is meant; to deny everything, delete the rule.", "an empty rule allows all traffic %s, on every port", who)
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
