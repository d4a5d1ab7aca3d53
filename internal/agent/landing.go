package agent

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// landing is what the compiler was told since the last time that the kernel's maps held all of it.
type landing struct {
	versions []*version
	pods     map[types.NamespacedName]*pod // that are new
}

// landed says that the kernel's maps hold what the compiler was told. It returns how long ago each new pod was first seen.
func (s *state) landed(now time.Time) (pods []time.Duration) {
	for _, v := range s.landing.versions {
		v.inForce = now
	}
	s.landing.versions = nil
	for key, p := range s.landing.pods {
		if ns := s.namespaces[key.Namespace]; ns == nil || ns.known {
			delete(s.landing.pods, key)
			pods = append(pods, now.Sub(p.seen))
		}
	}
	return pods
}
