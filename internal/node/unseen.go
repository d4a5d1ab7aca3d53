package node

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// Link is a network interface by its name and kind, as `ip link` shows both. The kind of a physical device is "device"; that of a veth which
// is a port of a bridge is "bridge port", and its name is that on the node.
type Link struct {
	Name, Kind string
}

// UnseenLink is an interface of a pod whose traffic the dataplane does not see: policies do not apply to it.
type UnseenLink struct {
	Pod types.NamespacedName
	UID types.UID
	Link
}

// SetUnseen takes in the interfaces whose traffic the dataplane does not see, by the network namespace that they are in. Nothing in the
// kernel's maps depends on them.
func (n *Node) SetUnseen(links map[NetNS][]Link) { n.unseenLinks = links }

// Unseen returns the interfaces of pods whose traffic the dataplane does not see, ordered by pod and name.
func (n *Node) Unseen() []UnseenLink {
	var out []UnseenLink
	for key, p := range n.pods {
		for _, ns := range n.owned[key] {
			for _, l := range n.unseenLinks[ns.id] {
				out = append(out, UnseenLink{Pod: key, UID: p.uid, Link: l})
			}
		}
	}
	slices.SortFunc(out, func(a, b UnseenLink) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name), cmp.Compare(a.Name, b.Name))
	})
	return out
}
