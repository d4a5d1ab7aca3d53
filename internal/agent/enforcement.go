package agent

// LabelEnforcement on a namespace overrides the node's Options.Audit for its pods.
const LabelEnforcement = "kidoban.dev/enforcement"

// The values of LabelEnforcement. Any other counts as none.
const (
	enforcementAudit   = "audit"
	enforcementEnforce = "enforce"
)

// audits reports whether the refusals of a namespace's pods are counted and logged, and the packets pass.
func (s *state) audits(ns *namespace) bool {
	switch ns.enforcement {
	case enforcementAudit:
		return true
	case enforcementEnforce:
		return false
	}
	return s.audit
}

// setNamespace takes in a namespace's labels.
func (s *state) setNamespace(name string, labels map[string]string) {
	ns := s.namespaces[name]
	if ns == nil || ns.enforcement == labels[LabelEnforcement] {
		return
	}
	ns.enforcement = labels[LabelEnforcement]
	s.compileNamespace(name)
}

func (s *state) compileNamespace(name string) {
	for key, p := range s.pods {
		if key.Namespace == name {
			s.compilePod(key, p)
		}
	}
}
