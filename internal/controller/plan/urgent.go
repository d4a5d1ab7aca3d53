package plan

import "k8s.io/apimachinery/pkg/types"

// Urgent ends the window of a slice: it can be taken at once.
func (s *Slices) Urgent(name types.NamespacedName) {
	if n, ok := s.namespaces[name.Namespace]; ok {
		delete(n.taken, name.Name)
	}
}
