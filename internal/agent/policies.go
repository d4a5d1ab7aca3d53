package agent

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// An endpoint is a PolicyEndpoint: the version that is in force, and the one that waits for its groups to be whole.
type endpoint struct {
	active  *version
	waiting *v1alpha1.PolicyEndpoint
	first   time.Time // seen of any version
	seen    time.Time // the newest of the two
}

// How long a PolicyEndpoint of which no version is in force waits for its groups: the controller writes thousands of slices in that time.
// An agent that starts delays its pods' other policies so long, while an earlier agent's tables judge.
const (
	groupPatience = time.Minute
	startPatience = 10 * time.Second
)

type version struct {
	selector labels.Selector
	policy   *policy.Policy
	groups   []policy.GroupKey
	source   *v1alpha1.PolicyEndpoint
	seen     time.Time
	inForce  time.Time // zero: not yet
}

// setPolicyEndpoint takes in a PolicyEndpoint as it is now. On an error the version that is in force stays so.
func (s *state) setPolicyEndpoint(pe *v1alpha1.PolicyEndpoint) error {
	key := types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}
	if _, err := s.parse(pe); err != nil {
		s.isolateUnread(key, pe)
		return err
	}
	e := s.endpoint(key)
	if v := e.active; v != nil && e.waiting == nil && v.source.UID == pe.UID && v.source.Generation == pe.Generation && equality.Semantic.DeepEqual(&v.source.Spec, &pe.Spec) {
		return nil // only what is not spec is another; a generation comes twice where etcd was restored
	}
	e.waiting, e.seen = pe, time.Now()
	s.waiting[key] = struct{}{}
	s.activate(key)
	return nil
}

// endpoint is what is known of a PolicyEndpoint, from now on.
func (s *state) endpoint(key types.NamespacedName) *endpoint {
	e := s.policies[key]
	if e == nil {
		e = &endpoint{first: time.Now()}
		s.policies[key] = e
		if s.byNamespace[key.Namespace] == nil {
			s.byNamespace[key.Namespace] = map[types.NamespacedName]*endpoint{}
		}
		s.byNamespace[key.Namespace][key] = e
	}
	return e
}

// deletePolicyEndpoint forgets a PolicyEndpoint and lifts what it had in force.
func (s *state) deletePolicyEndpoint(key types.NamespacedName) {
	e := s.policies[key]
	if e == nil {
		return
	}
	delete(s.policies, key)
	delete(s.waiting, key)
	if delete(s.byNamespace[key.Namespace], key); len(s.byNamespace[key.Namespace]) == 0 {
		delete(s.byNamespace, key.Namespace)
	}
	s.replace(key.Namespace, e, nil)
}

func (s *state) parse(pe *v1alpha1.PolicyEndpoint) (*version, error) {
	selector, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector)
	if err != nil {
		return nil, fmt.Errorf("spec.podSelector: %w", err)
	}
	v := &version{selector: selector, source: pe}
	if v.policy, err = policy.FromPolicyEndpoint(pe, s.sharedNamespace); err != nil {
		return nil, err
	}
	v.groups = policy.GroupKeys(pe.Namespace, s.sharedNamespace, pe.Spec.Ingress, pe.Spec.Egress)
	return v, nil
}

// activate puts the waiting version of a PolicyEndpoint in force if all its groups are whole.
func (s *state) activate(key types.NamespacedName) {
	e := s.policies[key]
	v, err := s.parse(e.waiting)
	if err != nil {
		return // setPolicyEndpoint has let it pass: groups make no difference
	}
	for _, g := range v.groups {
		if s.groups[g] == nil || !s.groups[g].whole {
			return
		}
	}
	v.seen = e.seen
	s.landing.versions = append(s.landing.versions, v)
	e.waiting = nil
	delete(s.waiting, key)
	s.replace(key.Namespace, e, v)
}

// isolateUnread has a PolicyEndpoint that cannot be read, and of which no version is in force, isolate its pods and allow nothing.
func (s *state) isolateUnread(key types.NamespacedName, pe *v1alpha1.PolicyEndpoint) {
	if e := s.policies[key]; e != nil && e.active != nil {
		return
	}
	if selector, err := metav1.LabelSelectorAsSelector(&pe.Spec.PodSelector); err == nil {
		s.replace(key.Namespace, s.endpoint(key), &version{selector: selector, source: pe, policy: policy.FailClosed(pe)})
	}
}

// isolateLate has PolicyEndpoints of which no version is in force, and whose groups have not come for so long, isolate their pods and allow
// what is known of the groups. They go on waiting for the rest.
func (s *state) isolateLate(patience time.Duration) (late []types.NamespacedName) {
	for key := range s.waiting {
		e := s.policies[key]
		if e.active != nil || time.Since(e.first) < patience {
			continue
		}
		v, err := s.parse(e.waiting)
		if err != nil {
			continue
		}
		late = append(late, key)
		s.replace(key.Namespace, e, v)
		for _, g := range v.groups {
			if s.groups[g] != nil {
				s.settle(g, s.groups[g])
			}
		}
	}
	return late
}

// awaitsGroups reports whether a PolicyEndpoint of a pod here, of which no version is in force, still has time to wait for its groups.
func (s *state) awaitsGroups(patience time.Duration) bool {
	for key := range s.waiting {
		e := s.policies[key]
		if e.active != nil || time.Since(e.first) >= patience {
			continue
		}
		v, err := s.parse(e.waiting)
		for podKey, p := range s.pods {
			if err == nil && podKey.Namespace == key.Namespace && v.selector.Matches(p.labels) {
				return true
			}
		}
	}
	return false
}

// groupArrived looks again at the PolicyEndpoints that wait.
func (s *state) groupArrived(group policy.GroupKey) {
	for key := range s.waiting {
		if key.Namespace == group.Namespace || group.Namespace == s.sharedNamespace {
			s.activate(key)
		}
	}
}

// replace puts another version of a PolicyEndpoint in force; nil for none.
func (s *state) replace(namespace string, e *endpoint, v *version) {
	old := e.active
	e.active = v
	if v != nil {
		for _, g := range v.groups {
			s.groupUsers[g]++
		}
	}
	if old != nil {
		for _, g := range old.groups {
			if s.groupUsers[g]--; s.groupUsers[g] == 0 {
				delete(s.groupUsers, g)
				s.dropUnused(g)
			}
		}
	}
	for key, p := range s.pods {
		if key.Namespace == namespace && (old != nil && old.selector.Matches(p.labels) || v != nil && v.selector.Matches(p.labels)) {
			s.compilePod(key, p)
		}
	}
}
