package tiered

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/policy"
)

// Decode an object's JSON as the API server's strict validation would: a field that is not known could be the one that denies.
func Decode(raw []byte, into metav1.Object) error {
	unknown, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		return err
	}
	var out []error
	for _, e := range unknown {
		var at kjson.FieldError
		if errors.As(e, &at) && (strings.HasPrefix(at.FieldPath(), "status") || strings.HasPrefix(at.FieldPath(), "metadata.")) && isUnknown(e) {
			continue // of a newer API server, and of no meaning here
		}
		out = append(out, e)
	}
	return errors.Join(out...)
}

func isUnknown(err error) bool { return strings.HasPrefix(err.Error(), "unknown field") }

// Problems of an object that could not be read.
func Problems(object string, err error) (out []migrate.Problem) {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		for _, e := range many.Unwrap() {
			out = append(out, Problems(object, e)...)
		}
		return out
	}
	p := migrate.Problem{Object: object, Problem: err.Error(), Fix: "correct the object"}
	var at kjson.FieldError
	if errors.As(err, &at) {
		p.Field, p.Problem = at.FieldPath(), "unknown field"
		if !isUnknown(err) {
			p.Problem = "duplicate field"
		}
		if strings.HasSuffix(p.Field, "SameLabels") || strings.HasSuffix(p.Field, "sameLabels") {
			p.Problem = "no version of ClusterNetworkPolicy compares a peer's labels with the subject's (upstream's proposal NPEP-122 is open)"
			p.Fix = "write one policy for each value of the label, with namespaces.matchExpressions {key, NotIn, [value]} or matchLabels"
		}
	}
	return []migrate.Problem{p}
}

// domainName is what v1alpha1 and v1alpha2 admit: a name of two labels or more, with * for the first one.
var domainName = regexp.MustCompile(`^(\*\.)?([a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

// IsDomainName reports whether a name can stand in a ClusterNetworkPolicy.
func IsDomainName(name string) bool { return domainName.MatchString(name) }

const maxPriority = 1000

// check what the API's schema would refuse.
type check struct {
	object   string
	problems []migrate.Problem
}

func (c *check) refuse(field, fix, format string, args ...any) {
	c.problems = append(c.problems, migrate.Problem{Object: c.object, Field: field, Problem: fmt.Sprintf(format, args...), Fix: cmp.Or(fix, "correct it")})
}

// Check a policy against the schema of its kind. maxRules is the number of rules of each direction that the kind admits, maxPeers that of
// peers and ports of a rule.
func (p *Policy) Check(maxRules, maxPeers int) []migrate.Problem {
	c := &check{object: p.String()}
	if p.Name == "" {
		c.refuse("metadata.name", "", "it has no name")
	}
	if p.Tier != cnp.AdminTier && p.Tier != cnp.BaselineTier {
		c.refuse("spec.tier", "", "%q is neither Admin nor Baseline", p.Tier)
	}
	if p.Priority < 0 || p.Priority > maxPriority {
		c.refuse("spec.priority", "", "%d is not between 0 and 1000", p.Priority)
	}
	c.pods("spec.subject", p.Subject.Namespaces, p.Subject.Pods, 0)
	for _, d := range policy.Directions {
		field := [...]string{"spec.ingress", "spec.egress"}[d]
		if len(p.Rules[d]) > maxRules {
			c.refuse(field, "", "%d rules, and there can be %d", len(p.Rules[d]), maxRules)
		}
		for i := range p.Rules[d] {
			c.rule(fmt.Sprintf("%s[%d]", field, i), p.Tier, d, &p.Rules[d][i], maxPeers)
		}
	}
	return c.problems
}

func (c *check) pods(field string, namespaces *metav1.LabelSelector, pods *anp.NamespacedPod, others int) {
	n := others
	if namespaces != nil {
		n++
		c.selector(field+".namespaces", namespaces)
	}
	if pods != nil {
		n++
		c.selector(field+".pods.namespaceSelector", &pods.NamespaceSelector)
		c.selector(field+".pods.podSelector", &pods.PodSelector)
	}
	if n != 1 {
		c.refuse(field, "give exactly one field", "%d fields, where there has to be exactly one", n)
	}
}

func (c *check) selector(field string, s *metav1.LabelSelector) {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		c.refuse(field, "", "%v", err)
	}
}

func (c *check) rule(field string, tier cnp.Tier, d policy.Direction, r *Rule, maxPeers int) {
	if r.Action == unknownAction {
		c.refuse(field+".action", "", "it is not one of the kind's actions")
	}
	if tier == cnp.BaselineTier && r.Action == policy.Pass {
		c.refuse(field+".action", "", "Pass has no meaning in the Baseline tier, which is the last one")
	}
	if len(r.Name) > 100 {
		c.refuse(field+".name", "", "it is longer than 100 characters")
	}
	peers := field + [...]string{".from", ".to"}[d]
	if n := len(r.Peers); n == 0 || n > maxPeers {
		c.refuse(peers, "", "%d peers, where there have to be 1 to %d", n, maxPeers)
	}
	for i := range r.Peers {
		c.peer(fmt.Sprintf("%s[%d]", peers, i), tier, r.Action, &r.Peers[i])
	}
	if r.Ports == nil {
		return
	}
	if n := len(*r.Ports); n == 0 || n > maxPeers {
		c.refuse(field+".ports", "leave the field out for all ports", "%d ports, where there have to be 1 to %d", n, maxPeers)
	}
	for i := range *r.Ports {
		c.port(fmt.Sprintf("%s.ports[%d]", field, i), &(*r.Ports)[i])
	}
}

func (c *check) peer(field string, tier cnp.Tier, action policy.Action, p *anp.AdminNetworkPolicyEgressPeer) {
	others := 0
	if p.Nodes != nil {
		others++
		c.selector(field+".nodes", p.Nodes)
	}
	if len(p.Networks) > 0 {
		others++
		if len(p.Networks) > maxItems {
			c.refuse(field+".networks", "", "%d networks, and there can be %d", len(p.Networks), maxItems)
		}
		for _, n := range p.Networks {
			if block, err := netip.ParsePrefix(string(n)); err != nil || block.Addr().Is4In6() {
				c.refuse(field+".networks", "", "%q is not a valid network", n)
			}
		}
	}
	if len(p.DomainNames) > 0 {
		others++
		if len(p.DomainNames) > maxItems {
			c.refuse(field+".domainNames", "", "%d names, and there can be %d", len(p.DomainNames), maxItems)
		}
		for _, n := range p.DomainNames {
			if !IsDomainName(string(n)) {
				c.refuse(field+".domainNames", "", "%q is not a valid name: * may only be the first label", n)
			}
		}
		if tier != cnp.AdminTier || action != policy.Allow {
			c.refuse(field+".domainNames", "", "names are for rules that allow, in the Admin tier")
		}
	}
	c.pods(field, p.Namespaces, p.Pods, others)
}

func (c *check) port(field string, p *anp.AdminNetworkPolicyPort) {
	n := 0
	number := func(at string, port int32) {
		if port < 1 || port > 65535 {
			c.refuse(field+at, "", "port %d is not between 1 and 65535", port)
		}
	}
	protocol := func(at string, protocol corev1.Protocol) {
		switch protocol {
		case "", corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
		default:
			c.refuse(field+at, "", "protocol %q is none of TCP, UDP and SCTP", protocol)
		}
	}
	if p.PortNumber != nil {
		n++
		number(".portNumber.port", p.PortNumber.Port)
		protocol(".portNumber.protocol", p.PortNumber.Protocol)
	}
	if p.PortRange != nil {
		n++
		number(".portRange.start", p.PortRange.Start)
		number(".portRange.end", p.PortRange.End)
		protocol(".portRange.protocol", p.PortRange.Protocol)
	}
	if p.NamedPort != nil {
		n++
		if errs := validation.IsValidPortName(*p.NamedPort); len(errs) > 0 {
			c.refuse(field+".namedPort", "", "%q: %s", *p.NamedPort, strings.Join(errs, "; "))
		}
	}
	if n != 1 {
		c.refuse(field, "give exactly one field", "%d fields, where there has to be exactly one", n)
	}
}
