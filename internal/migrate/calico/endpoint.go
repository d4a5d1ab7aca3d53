package calico

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Labels that Calico gives to what is in the cluster, beside those that it has. A namespace's labels are its pods' too, with a prefix, and
// so are a service account's.
const (
	labelNamespace      = "projectcalico.org/namespace"
	labelOrchestrator   = "projectcalico.org/orchestrator"
	labelServiceAccount = "projectcalico.org/serviceaccount"
	labelName           = "projectcalico.org/name" // of namespaces and service accounts
	prefixNamespace     = "pcns."
	prefixAccount       = "pcsa."
)

// Endpoint is an end of a flow: an address, and the pod that has it.
type Endpoint struct {
	Addr netip.Addr
	// Pod is nil where the address is no pod's.
	Pod *corev1.Pod
	// NamespaceLabels and AccountLabels are those of the pod's namespace and service account, as far as they are known.
	NamespaceLabels, AccountLabels map[string]string
	// Names are the domain names that the address belongs to.
	Names map[string]bool
}

// label of the endpoint by the key that selectors use.
func (e *Endpoint) label(key string) (string, bool) {
	if v, ok := e.Pod.Labels[key]; ok {
		return v, true
	}
	switch key {
	case labelNamespace:
		return e.Pod.Namespace, true
	case labelOrchestrator:
		return "k8s", true
	case labelServiceAccount:
		return account(e.Pod), true
	}
	if key, ok := strings.CutPrefix(key, prefixNamespace); ok {
		return labelOf(key, e.Pod.Namespace, e.NamespaceLabels)
	}
	if key, ok := strings.CutPrefix(key, prefixAccount); ok {
		return labelOf(key, account(e.Pod), e.AccountLabels)
	}
	return "", false
}

func account(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}

func labelOf(key, name string, labels map[string]string) (string, bool) {
	if key == labelName {
		return name, true
	}
	v, ok := labels[key]
	return v, ok
}

// Label of a NetworkSet by the key that selectors use. namespaceLabels are those of its namespace.
func (n *NetworkSet) label(key string, namespaceLabels map[string]string) (string, bool) {
	if v, ok := n.Labels[key]; ok {
		return v, true
	}
	if n.Namespace == "" {
		return "", false
	}
	if key == labelNamespace {
		return n.Namespace, true
	}
	if key, ok := strings.CutPrefix(key, prefixNamespace); ok {
		return labelOf(key, n.Namespace, namespaceLabels)
	}
	return "", false
}

// Matches reports whether a selector of a rule selects a NetworkSet.
func (n *NetworkSet) Matches(s *Selector, namespaceLabels map[string]string) bool {
	return s.Matches(func(key string) (string, bool) { return n.label(key, namespaceLabels) })
}

// Matches reports whether a selector selects a HostEndpoint.
func (h *HostEndpoint) Matches(s *Selector) bool {
	return s.Matches(func(key string) (string, bool) { v, ok := h.Labels[key]; return v, ok })
}
