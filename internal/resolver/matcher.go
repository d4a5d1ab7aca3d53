package resolver

import (
	"iter"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// namespace is a namespace with its pods and the selectors that concern them.
type namespace struct {
	name string
	// known is false while only pods or policies of it were seen.
	known  bool
	labels map[string]string
	pods   map[string]*pod
	// local contains the selectors of the namespace's own policies; scopes contain those that cross
	// namespaces and select this one.
	local  *scope
	scopes map[*scope]struct{}
}

// scope is a set of namespaces, and the pod selectors that are evaluated in them.
type scope struct {
	// selector of namespaces; nil for the scope of one namespace's own policies.
	selector   *selector
	namespaces map[*namespace]struct{}
	matchers   map[string]*matcher // by the key of their selector
	index      index[*matcher]
}

// matcher is a pod selector in a scope, shared by the groups made of its pods. It exists while one of its
// fields below is in use.
type matcher struct {
	scope    *scope
	selector selector
	// group contains the addresses of all its pods, byPort those of the pods that have a named port.
	group  *group
	byPort map[policy.NamedPort][]*group
	// names are the named ports whose numbers a policy depends on, by the key of the block that narrows the
	// pods' addresses.
	names map[portName]map[string]*nameCount
}

// nameCount counts the pods that give a number to a name, by namespace; if there is a block, only pods with an address
// in it.
type nameCount struct {
	within  *block
	numbers map[namespaceNumber]int
	users   map[*policyState]struct{}
}

// matchers returns the matchers that select the pod.
func (ns *namespace) matchers(p *pod) []*matcher {
	if !p.isPeer() {
		return nil
	}
	var out []*matcher
	yield := func(m *matcher) {
		if m.selector.matches(p.Labels) {
			out = append(out, m)
		}
	}
	if ns.local != nil {
		ns.local.index.candidates(p.Labels, yield)
	}
	for s := range ns.scopes {
		s.index.candidates(p.Labels, yield)
	}
	return slices.Clip(out)
}

// matcher returns the matcher of a set of pods that a policy of a namespace selects, and creates it if there
// is none.
func (r *Resolver) matcher(from string, set *podSet) *matcher {
	if set.nodes {
		from = nodesNamespace
	}
	s := r.scope(from, set.namespaces)
	key := set.pods.key()
	m, ok := s.matchers[key]
	if !ok {
		m = &matcher{scope: s, selector: set.pods, byPort: map[policy.NamedPort][]*group{}, names: map[portName]map[string]*nameCount{}}
		s.matchers[key] = m
		s.index.add(m.selector, m)
		for p := range r.pods(m) {
			p.in = append(p.in, m)
		}
	}
	return m
}

// dropGroup removes one of the groups of pods with a named port.
func (m *matcher) dropGroup(g *group) {
	m.byPort[*g.port] = slices.DeleteFunc(m.byPort[*g.port], func(other *group) bool { return other == g })
	if len(m.byPort[*g.port]) == 0 {
		delete(m.byPort, *g.port)
	}
}

// dropMatcher removes a matcher that is no longer in use, and its scope with the last matcher.
func (r *Resolver) dropMatcher(m *matcher) {
	if m.group != nil || len(m.byPort) > 0 || len(m.names) > 0 {
		return
	}
	for p := range r.pods(m) {
		p.in = slices.DeleteFunc(p.in, func(in *matcher) bool { return in == m })
	}
	s := m.scope
	s.index.remove(m.selector, m)
	delete(s.matchers, m.selector.key())
	if len(s.matchers) > 0 {
		return
	}
	for ns := range s.namespaces {
		delete(ns.scopes, s)
		if ns.local == s {
			ns.local = nil
		}
		r.dropNamespace(ns)
	}
	if s.selector != nil {
		r.scopeIndex.remove(*s.selector, s)
		delete(r.scopes, s.selector.key())
	}
}

// scope returns the scope of a namespace selector or, if that is nil, of one namespace.
func (r *Resolver) scope(from string, namespaces *selector) *scope {
	s := &scope{selector: namespaces, namespaces: map[*namespace]struct{}{}, matchers: map[string]*matcher{}, index: newIndex[*matcher]()}
	if namespaces == nil {
		ns := r.namespace(from)
		if ns.local == nil {
			ns.local = s
			s.namespaces[ns] = struct{}{}
		}
		return ns.local
	}
	key := namespaces.key()
	if have, ok := r.scopes[key]; ok {
		return have
	}
	r.scopes[key] = s
	r.scopeIndex.add(*namespaces, s)
	for _, ns := range r.namespaces {
		if ns.known && namespaces.matches(ns.labels) {
			s.namespaces[ns] = struct{}{}
			ns.scopes[s] = struct{}{}
		}
	}
	return s
}

// pods yields the pods that a matcher selects, in no order; none before Start.
func (r *Resolver) pods(m *matcher) iter.Seq[*pod] {
	return func(yield func(*pod) bool) {
		if !r.started {
			return
		}
		for ns := range m.scope.namespaces {
			if !ns.eachPeer(m.selector, yield) {
				return
			}
		}
	}
}

// eachPeer yields the pods that a peer with this selector selects in the namespace, in no order, until yield returns false; then it returns false, too.
func (ns *namespace) eachPeer(s selector, yield func(*pod) bool) bool {
	for _, p := range ns.pods {
		if p.isPeer() && s.matches(p.Labels) && !yield(p) {
			return false
		}
	}
	return true
}

func (r *Resolver) setNamespace(name string, labels map[string]string, known bool) {
	ns := r.namespace(name)
	ns.known, ns.labels = known, labels
	scopes := map[*scope]struct{}{}
	if known {
		r.scopeIndex.candidates(labels, func(s *scope) {
			if s.selector.matches(labels) {
				scopes[s] = struct{}{}
			}
		})
	}
	changed := false
	for s := range ns.scopes {
		if _, stays := scopes[s]; !stays {
			delete(s.namespaces, ns)
			changed = true
		}
	}
	for s := range scopes {
		if _, was := ns.scopes[s]; !was {
			s.namespaces[ns] = struct{}{}
			changed = true
		}
	}
	ns.scopes = scopes
	if changed && r.started {
		for _, old := range sortedPods(ns.pods) {
			p := *old
			p.in = ns.matchers(&p)
			ns.pods[p.Key.Name] = &p
			r.movePod(old, &p)
			r.own(old, &p)
		}
	}
	r.dropNamespace(ns)
}

// namespace returns the record of a namespace, and creates it if there is none.
func (r *Resolver) namespace(name string) *namespace {
	ns, ok := r.namespaces[name]
	if !ok {
		ns = &namespace{name: name, pods: map[string]*pod{}, scopes: map[*scope]struct{}{}}
		r.namespaces[name] = ns
	}
	return ns
}

// dropNamespace removes the record of a namespace that does not exist and has no pods and no policies.
func (r *Resolver) dropNamespace(ns *namespace) {
	if !ns.known && len(ns.pods) == 0 && ns.local == nil {
		delete(r.namespaces, ns.name)
	}
}
