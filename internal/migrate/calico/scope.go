package calico

import "fmt"

// What a selector selects depends on where it stands: those of a NetworkPolicy are about its own namespace unless a namespaceSelector says
// otherwise, and a namespaceSelector asks for the labels that pods have from their namespace.

// Selector of the endpoints that the policy is about, with all that the spec says of them.
func (p *Policy) Selector() (*Selector, error) {
	var all []*Selector
	if p.Kind == KindNetworkPolicy {
		all = append(all, &Selector{Op: OpIn, Key: labelNamespace, Values: []string{p.Namespace}})
	}
	for _, part := range []struct{ field, text, prefix, present string }{
		{"spec.selector", p.Spec.Selector, "", ""},
		{"spec.namespaceSelector", p.Spec.NamespaceSelector, prefixNamespace, labelNamespace},
		{"spec.serviceAccountSelector", p.Spec.ServiceAccountSelector, prefixAccount, labelServiceAccount},
	} {
		if part.text == "" {
			continue
		}
		s, err := ParseSelector(part.text)
		if err != nil {
			return nil, &Problem{Object: p.String(), Field: part.field, Problem: err.Error(), Fix: "correct it"}
		}
		if part.prefix != "" {
			s = s.prefixed(part.prefix, part.present)
		}
		all = append(all, s)
	}
	return and(all), nil
}

func and(all []*Selector) *Selector {
	switch len(all) {
	case 0:
		return &Selector{Op: OpAll}
	case 1:
		return all[0]
	}
	return &Selector{Op: OpAnd, Of: all}
}

// prefixed asks for labels with a prefix. all() is then what has the label present, and global() what has not.
func (s *Selector) prefixed(prefix, present string) *Selector {
	out := *s
	switch s.Op {
	case OpAll:
		return &Selector{Op: OpHas, Key: present}
	case OpGlobal:
		return &Selector{Op: OpNot, Of: []*Selector{{Op: OpHas, Key: present}}}
	default:
	}
	if s.Key != "" {
		out.Key = prefix + s.Key
	}
	out.Of = nil
	for _, o := range s.Of {
		out.Of = append(out.Of, o.prefixed(prefix, present))
	}
	return &out
}

// Selectors of an entity: what it must be selected by, and what it must not; nil for none. namespace is the policy's, empty for a
// GlobalNetworkPolicy. The error names the field.
func (e *EntityRule) Selectors(namespace string) (positive, negative *Selector, err error) {
	var all []*Selector
	scoped := e.Selector != "" || e.NotSelector != "" || e.ServiceAccounts != nil
	switch {
	case e.NamespaceSelector != "":
		s, err := ParseSelector(e.NamespaceSelector)
		if err != nil {
			return nil, nil, fmt.Errorf("namespaceSelector: %w", err)
		}
		all = append(all, s.prefixed(prefixNamespace, labelNamespace))
	case namespace != "" && scoped:
		all = append(all, &Selector{Op: OpIn, Key: labelNamespace, Values: []string{namespace}})
	}
	if e.ServiceAccounts != nil {
		s, err := e.ServiceAccounts.selector()
		if err != nil {
			return nil, nil, err
		}
		all = append(all, s...)
	}
	if e.Selector != "" {
		s, err := ParseSelector(e.Selector)
		if err != nil {
			return nil, nil, fmt.Errorf("selector: %w", err)
		}
		all = append(all, s)
	}
	if len(all) > 0 {
		positive = and(all)
	}
	if e.NotSelector != "" {
		if negative, err = ParseSelector(e.NotSelector); err != nil {
			return nil, nil, fmt.Errorf("notSelector: %w", err)
		}
	}
	return positive, negative, nil
}

func (m *ServiceAccountMatch) selector() ([]*Selector, error) {
	var all []*Selector
	if len(m.Names) > 0 {
		all = append(all, &Selector{Op: OpIn, Key: labelServiceAccount, Values: m.Names})
	}
	if m.Selector != "" {
		s, err := ParseSelector(m.Selector)
		if err != nil {
			return nil, fmt.Errorf("serviceAccounts.selector: %w", err)
		}
		all = append(all, s.prefixed(prefixAccount, labelServiceAccount))
	}
	return all, nil
}
