package calico

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate"
	"github.com/kidoban/kidoban/internal/policy"
)

// Kinds that decide about packets.
const (
	KindNetworkPolicy       = "NetworkPolicy"
	KindGlobalNetworkPolicy = "GlobalNetworkPolicy"
	KindNetworkSet          = "NetworkSet"
	KindGlobalNetworkSet    = "GlobalNetworkSet"
	KindTier                = "Tier"
	KindHostEndpoint        = "HostEndpoint"
	KindIPPool              = "IPPool"
)

// The API groups: the one that people write, and the one that clusters store.
const (
	Group       = "projectcalico.org"
	GroupStored = "crd.projectcalico.org"
)

// Set is everything that Calico judges a packet by.
type Set struct {
	Policies      []Policy
	NetworkSets   []NetworkSet
	Tiers         []Tier
	HostEndpoints []HostEndpoint
	IPPools       []IPPool
	// Kubernetes are the networking.k8s.io NetworkPolicies, which Calico judges by too: in its default tier, at order 1000.
	Kubernetes []networkingv1.NetworkPolicy
	// Cluster are ClusterNetworkPolicies that were converted from Calico's policies. Their tiers are around all of Calico's.
	Cluster []cnp.ClusterNetworkPolicy
	// Invalid is what could not be read of objects; policies have it too.
	Invalid []Problem
	// Inert are objects that change no verdict, as staged policies, and why.
	Inert []Problem
}

// Policy is a NetworkPolicy or a GlobalNetworkPolicy.
type Policy struct {
	Kind      string
	Namespace string // of a NetworkPolicy
	// Name without the tier's prefix, which stored objects have; ObjectName with it, if there is one.
	Name, ObjectName string
	// Stored: read from crd.projectcalico.org/v1, where no API server has filled in defaults.
	Stored bool
	Spec   PolicySpec
	// Invalid is what could not be read of it. It still counts for what depends on it.
	Invalid []Problem
}

// String is "Kind namespace/name" or "Kind name".
func (p *Policy) String() string {
	name := cmp.Or(p.ObjectName, p.Name)
	if p.Namespace == "" {
		return p.Kind + " " + name
	}
	return p.Kind + " " + p.Namespace + "/" + name
}

// PolicySpec is that of both kinds; what is only a GlobalNetworkPolicy's is said.
type PolicySpec struct {
	Tier                   string                    `json:"tier,omitempty"`
	Order                  *float64                  `json:"order,omitempty"`
	Selector               string                    `json:"selector,omitempty"`
	NamespaceSelector      string                    `json:"namespaceSelector,omitempty"` // global
	ServiceAccountSelector string                    `json:"serviceAccountSelector,omitempty"`
	Types                  []networkingv1.PolicyType `json:"types,omitempty"`
	Ingress                []Rule                    `json:"ingress,omitempty"`
	Egress                 []Rule                    `json:"egress,omitempty"`
	DoNotTrack             bool                      `json:"doNotTrack,omitempty"`     // global, host endpoints
	PreDNAT                bool                      `json:"preDNAT,omitempty"`        // global, host endpoints
	ApplyOnForward         bool                      `json:"applyOnForward,omitempty"` // global, host endpoints
	PerformanceHints       []string                  `json:"performanceHints,omitempty"`
}

// TierName is the policy's tier; without one it is the default tier.
func (p *Policy) TierName() string {
	if p.Spec.Tier == "" {
		return DefaultTier
	}
	return p.Spec.Tier
}

// Order of the policy in its tier; without one it is the last.
func (p *Policy) Order() float64 {
	if p.Spec.Order == nil {
		return math.Inf(1)
	}
	return *p.Spec.Order
}

// Isolates says in which directions the policy applies. Without types it is those that it has rules for, and Ingress where it has
// none; but where the object is read as it is stored, the field is not filled in, and Calico takes no types for both.
func (p *Policy) Isolates() (out [2]bool) {
	if len(p.Spec.Types) == 0 {
		out[policy.Egress] = p.Stored || len(p.Spec.Egress) > 0
		out[policy.Ingress] = p.Stored || len(p.Spec.Ingress) > 0 || !out[policy.Egress]
		return out
	}
	for _, t := range p.Spec.Types {
		out[policy.Ingress] = out[policy.Ingress] || t == networkingv1.PolicyTypeIngress
		out[policy.Egress] = out[policy.Egress] || t == networkingv1.PolicyTypeEgress
	}
	return out
}

// AboutHosts reports whether the policy is one about host endpoints alone.
func (p *Policy) AboutHosts() bool { return p.Spec.DoNotTrack || p.Spec.PreDNAT }

// Rules of a direction, in their order.
func (p *Policy) Rules(d policy.Direction) []Rule {
	if d == policy.Ingress {
		return p.Spec.Ingress
	}
	return p.Spec.Egress
}

// RulePath is the field of a rule, as spec.ingress[0].
func RulePath(d policy.Direction, rule int) string {
	return fmt.Sprintf("spec.%s[%d]", [...]string{"ingress", "egress"}[d], rule)
}

// Action of a rule.
type Action string

// The actions. Pass goes on with the next tier; Log decides nothing.
const (
	Allow Action = "Allow"
	Deny  Action = "Deny"
	Pass  Action = "Pass"
	Log   Action = "Log"
)

// Rule matches what all of its fields match.
type Rule struct {
	Action      Action      `json:"action"`
	IPVersion   *int        `json:"ipVersion,omitempty"`
	Protocol    *Protocol   `json:"protocol,omitempty"`
	NotProtocol *Protocol   `json:"notProtocol,omitempty"`
	ICMP        *ICMPFields `json:"icmp,omitempty"`
	NotICMP     *ICMPFields `json:"notICMP,omitempty"`
	HTTP        *HTTPMatch  `json:"http,omitempty"`
	Source      EntityRule  `json:"source,omitempty"`
	Destination EntityRule  `json:"destination,omitempty"`
	Metadata    *struct {
		Annotations map[string]string `json:"annotations,omitempty"`
	} `json:"metadata,omitempty"`
}

// Peer is the other end's part of a rule, Self that of the pod which the policy selects.
func (r *Rule) Peer(d policy.Direction) (field string, e *EntityRule) {
	if d == policy.Ingress {
		return "source", &r.Source
	}
	return "destination", &r.Destination
}

// Self is the part of a rule about the pod that the policy selects.
func (r *Rule) Self(d policy.Direction) (field string, e *EntityRule) { return r.Peer(1 - d) }

// EntityRule matches one end of a flow.
type EntityRule struct {
	Nets              []string             `json:"nets,omitempty"`
	NotNets           []string             `json:"notNets,omitempty"`
	Selector          string               `json:"selector,omitempty"`
	NotSelector       string               `json:"notSelector,omitempty"`
	NamespaceSelector string               `json:"namespaceSelector,omitempty"`
	ServiceAccounts   *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
	Services          *ServiceMatch        `json:"services,omitempty"`
	Ports             []Port               `json:"ports,omitempty"`
	NotPorts          []Port               `json:"notPorts,omitempty"`
	Domains           []string             `json:"domains,omitempty"` // not of the open source edition
}

// ServiceAccountMatch matches pods by their service accounts.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

// ServiceMatch matches the endpoints of a Service.
type ServiceMatch struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// ICMPFields match ICMP messages.
type ICMPFields struct {
	Type *int `json:"type,omitempty"`
	Code *int `json:"code,omitempty"`
}

// HTTPMatch matches requests, by a proxy.
type HTTPMatch struct {
	Methods []string `json:"methods,omitempty"`
	Paths   []struct {
		Exact  string `json:"exact,omitempty"`
		Prefix string `json:"prefix,omitempty"`
	} `json:"paths,omitempty"`
}

// NetworkSet is networks under labels, by which selectors of rules find them. Namespace is empty for a GlobalNetworkSet.
type NetworkSet struct {
	Namespace, Name string
	Labels          map[string]string
	Nets            []string
	// Domains are names that only a proxy or a DNS server knows the addresses of.
	Domains []string
	// Invalid: the networks could not be read.
	Invalid bool
}

// Tier is a group of policies that are judged together.
type Tier struct {
	Name string
	// Order among tiers; +Inf: last.
	Order float64
	// DefaultAction is Deny or Pass: what becomes of what no policy of the tier decides, where one selects the pod.
	DefaultAction Action
}

// HostEndpoint is an interface of a node under policies.
type HostEndpoint struct {
	Name   string
	Labels map[string]string
}

// IPPool is where Calico takes pods' addresses from.
type IPPool struct {
	Name, CIDR string
}

// Problem is something about an object that stands in the way.
type Problem = migrate.Problem

// object of the API, as far as every kind has it.
type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
}

// WithoutNames returns the set without those domain names that no policy can have, and what was taken out. A rule whose names are all of
// them keeps them: without names it would be about every address.
func (s *Set) WithoutNames(isLost func(string) bool) (*Set, []Problem) {
	var lost []Problem
	take := func(object, field string, names []string) []string {
		out := slices.DeleteFunc(slices.Clone(names), isLost)
		if len(out) == 0 || len(out) == len(names) {
			return names
		}
		for _, n := range names {
			if isLost(n) {
				lost = append(lost, Problem{Object: object, Field: field, Problem: fmt.Sprintf("%s is lost: * can only be the first label of a name", n), Fix: "name the hosts, or *. and what follows the last *"})
			}
		}
		return out
	}
	out := *s
	out.NetworkSets = slices.Clone(s.NetworkSets)
	for i := range out.NetworkSets {
		n := &out.NetworkSets[i]
		n.Domains = take(n.String(), "spec.allowedEgressDomains", n.Domains)
	}
	out.Policies = slices.Clone(s.Policies)
	for i := range out.Policies {
		p := &out.Policies[i]
		p.Spec.Egress = slices.Clone(p.Spec.Egress)
		for j := range p.Spec.Egress {
			e := &p.Spec.Egress[j].Destination
			e.Domains = take(p.String(), RulePath(policy.Egress, j)+".destination.domains", e.Domains)
		}
	}
	return &out, lost
}
