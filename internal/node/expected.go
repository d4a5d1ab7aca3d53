package node

import "k8s.io/apimachinery/pkg/types"

// IsExpected reports whether the API server has sent a pod that may get a sandbox now. It is false for one that is being deleted: the sandbox
// may be that of the next pod of the same name, which has labels of its own.
func (n *Node) IsExpected(key types.NamespacedName) bool {
	obj := n.lastSeen(key)
	return obj != nil && obj != n.sandboxes[key].standIn && obj.DeletionTimestamp == nil
}
