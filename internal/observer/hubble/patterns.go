package hubble

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	k8slabels "k8s.io/apimachinery/pkg/labels"
)

// allowedInPattern is what a domain name or a node's name, or a pattern of them, consists of.
var allowedInPattern = regexp.MustCompile(`^[-._*0-9a-z]+$`)

// namePattern reads a name in which each * stands for any characters.
func namePattern(s string) (*regexp.Regexp, error) {
	p := strings.ToLower(strings.TrimSuffix(strings.TrimSpace(s), "."))
	if !allowedInPattern.MatchString(p) {
		return nil, fmt.Errorf("%q is not a valid name or pattern", s)
	}
	return regexp.Compile("^" + strings.ReplaceAll(regexp.QuoteMeta(p), `\*`, ".*") + "$")
}

func byDomainName(asked []string, of func(*flowpb.Flow) []string) (predicate, error) {
	patterns := make([]*regexp.Regexp, len(asked))
	for i, s := range asked {
		p, err := namePattern(s)
		if err != nil {
			return nil, err
		}
		patterns[i] = p
	}
	return func(v *view) bool {
		for _, name := range of(v.flow) {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) }) {
				return true
			}
		}
		return false
	}, nil
}

// byNode reads patterns of nodes' names. In front of a slash is the name of a cluster, of which there is one without a name: only a
// pattern that is empty or "*" can match it.
func byNode(asked []string) (predicate, error) {
	patterns := make([]*regexp.Regexp, len(asked))
	for i, s := range asked {
		cluster, node, ok := strings.Cut(s, "/")
		if !ok {
			cluster, node = "", s
		}
		if cluster != "" && cluster != "*" {
			return nil, fmt.Errorf("%q: the cluster has no name that %q could match", s, cluster)
		}
		if node == "" && ok {
			node = "*"
		}
		p, err := namePattern(node)
		if err != nil {
			return nil, err
		}
		patterns[i] = p
	}
	return func(v *view) bool {
		name := v.flow.GetNodeName()
		return name != "" && slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(name) })
	}, nil
}

// byLabels reads Kubernetes' label selectors. A key may have its source before it, as in k8s:app; without one it matches any source.
func byLabels(asked []string, of func(*flowpb.Flow) *flowpb.Endpoint) (predicate, error) {
	selectors := make([]k8slabels.Selector, len(asked))
	for i, s := range asked {
		selector, err := k8slabels.Parse(withSources(s))
		if err != nil {
			return nil, fmt.Errorf("%q is not a valid label selector: %w", s, err)
		}
		selectors[i] = selector
	}
	return func(v *view) bool {
		set := labelSet(of(v.flow).GetLabels())
		return slices.ContainsFunc(selectors, func(s k8slabels.Selector) bool { return s.Matches(set) })
	}, nil
}

// labelSet contains each label under its key, and those of other sources than Kubernetes under SOURCE.KEY, too: selectors have no room
// for a colon.
func labelSet(labels []string) k8slabels.Set {
	set := k8slabels.Set{}
	for _, l := range labels {
		full, value, _ := strings.Cut(l, "=")
		source, k, _ := strings.Cut(full, ":")
		set[k] = value
		if source != kubernetesSource {
			set[source+"."+k] = value
		}
	}
	return set
}

// Sources of labels.
const (
	kubernetesSource = "k8s"
	anySource        = "any"
)

var selectorKey = regexp.MustCompile(`^(\s*!?\s*)([^\s=!,]+)`)

// withSources writes the keys of a selector as labelSet has them.
func withSources(selector string) string {
	requirements := splitRequirements(selector)
	for i, r := range requirements {
		requirements[i] = selectorKey.ReplaceAllStringFunc(r, func(m string) string {
			parts := selectorKey.FindStringSubmatch(m)
			source, k, ok := strings.Cut(parts[2], ":")
			switch {
			case !ok:
				return m
			case source == kubernetesSource || source == anySource:
				return parts[1] + k
			}
			return parts[1] + source + "." + k
		})
	}
	return strings.Join(requirements, ",")
}

// splitRequirements splits a selector at the commas that are not in brackets.
func splitRequirements(selector string) []string {
	var out []string
	depth, begin := 0, 0
	for i, r := range selector {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			out = append(out, selector[begin:i])
			begin = i + 1
		}
	}
	return append(out, selector[begin:])
}
