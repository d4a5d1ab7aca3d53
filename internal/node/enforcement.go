package node

import (
	"time"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// audits reports whether denials of a namespace's pods are counted and logged while the packets pass.
func (n *Node) audits(name string) bool {
	if ns := n.namespaces[name]; ns != nil {
		switch ns.enforcement {
		case v1alpha1.LabelledAudit:
			return true
		case v1alpha1.LabelledEnforce:
			return false
		}
	}
	return n.opts.Audit
}

// SetNamespace takes in a namespace's labels, and whether it is terminating.
func (n *Node) SetNamespace(now time.Time, name string, of map[string]string, terminating bool) {
	n.begin(now)
	ns := n.namespaces[name]
	if ns == nil {
		return
	}
	bereft := terminating && (ns.bereft || !ns.synced)
	another := ns.terminating && !terminating // of the same name
	changed := !labels.Equals(ns.labels, of) || ns.bereft != bereft
	ns.enforcement, ns.labels, ns.terminating, ns.bereft = of[v1alpha1.LabelEnforcement], of, terminating, bereft
	for key := range n.byNamespace[name] {
		if another {
			n.RemoveDeleted(now, key)
		}
	}
	if changed {
		n.compileNamespace(name)
	}
}

func (n *Node) terminates(name string) bool {
	ns := n.namespaces[name]
	return ns != nil && ns.terminating
}
