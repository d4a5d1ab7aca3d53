package node

import "time"

// LabelEnforcement on a namespace overrides Options.Audit for its pods.
const LabelEnforcement = "kidoban.dev/enforcement"

// The values of LabelEnforcement. Any other counts as none.
const (
	enforcementAudit   = "audit"
	enforcementEnforce = "enforce"
)

// audits reports whether denials of a namespace's pods are counted and logged while the packets pass.
func (n *Node) audits(name string) bool {
	if ns := n.namespaces[name]; ns != nil {
		switch ns.enforcement {
		case enforcementAudit:
			return true
		case enforcementEnforce:
			return false
		}
	}
	return n.opts.Audit
}

// SetNamespace takes in a namespace's labels.
func (n *Node) SetNamespace(now time.Time, name string, labels map[string]string) {
	n.begin(now)
	ns := n.namespaces[name]
	if ns == nil || ns.enforcement == labels[LabelEnforcement] {
		return
	}
	ns.enforcement = labels[LabelEnforcement]
	n.compileNamespace(name)
}
