package calico

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// Read takes in one object of Calico's API, as JSON; namespace is that of a namespaced object which does not say its own. It reports
// whether the object is of Calico's groups. What cannot be read goes to Invalid.
func (s *Set) Read(t metav1.TypeMeta, raw []byte, namespace string) (bool, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil {
		return false, err
	}
	o.TypeMeta = t
	gv, err := schema.ParseGroupVersion(o.APIVersion)
	if err == nil && gv.Group == "policy.networking.k8s.io" {
		s.addClusterPolicy(&o)
		return true, nil
	}
	if err != nil || gv.Group != Group && gv.Group != GroupStored {
		return false, nil
	}
	switch o.Kind {
	case KindNetworkPolicy, KindNetworkSet, "StagedNetworkPolicy":
		o.Metadata.Namespace = cmp.Or(o.Metadata.Namespace, namespace)
	default:
		o.Metadata.Namespace = "" // of no meaning, and in many charts
	}
	stored := gv.Group == GroupStored
	if err := s.add(&o, raw, stored); err != nil {
		s.Invalid = append(s.Invalid, problemsOf(name(&o), err)...)
	}
	return true, nil
}

// AddCluster takes in a ClusterNetworkPolicy. One that an earlier conversion wrote goes to Cluster; any other is noted as one that Calico
// may enforce.
func (s *Set) AddCluster(p *cnp.ClusterNetworkPolicy) {
	if p.Annotations[Annotation] != "" {
		s.Cluster = replace(s.Cluster, *p, func(q *cnp.ClusterNetworkPolicy) bool { return q.Name == p.Name })
		return
	}
	s.addClusterPolicy(&object{TypeMeta: metav1.TypeMeta{Kind: "ClusterNetworkPolicy"}, Metadata: p.ObjectMeta})
}

// addClusterPolicy notes a policy of network-policy-api, which Calico enforces in tiers before and after its default one.
func (s *Set) addClusterPolicy(o *object) {
	problem := Problem{Object: name(o), Problem: "Calico enforces it, and it is not looked at here", Fix: "see whether what follows it is meant without it"}
	s.Invalid = append(s.Invalid, problem)
	if o.Kind != "BaselineAdminNetworkPolicy" { // which is asked last, about pods that nothing else selects
		s.Policies = append(s.Policies, Policy{Kind: o.Kind, Name: o.Metadata.Name, Invalid: []Problem{problem}})
	}
}

func name(o *object) string {
	if o.Metadata.Namespace == "" {
		return o.Kind + " " + o.Metadata.Name
	}
	return o.Kind + " " + o.Metadata.Namespace + "/" + o.Metadata.Name
}

func problemsOf(object string, err error) []Problem {
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		var out []Problem
		for _, e := range many.Unwrap() {
			out = append(out, problemsOf(object, e)...)
		}
		return out
	}
	var p *Problem
	if errors.As(err, &p) {
		return []Problem{*p}
	}
	return []Problem{{Object: object, Problem: err.Error(), Fix: "correct the object"}}
}

func (s *Set) add(o *object, raw []byte, stored bool) error {
	switch o.Kind {
	case KindNetworkPolicy, KindGlobalNetworkPolicy:
		p := Policy{Kind: o.Kind, Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, ObjectName: o.Metadata.Name, Stored: stored}
		err := errors.Join(spec(name(o), raw, &p.Spec), p.checkFields())
		if err != nil {
			p.Invalid = problemsOf(name(o), err)
		}
		p.Name = strings.TrimPrefix(p.Name, p.TierName()+".")
		s.Policies = replace(s.Policies, p, func(q *Policy) bool { return q.String() == p.String() })
		return err
	case KindNetworkSet, KindGlobalNetworkSet:
		var set struct {
			Nets    []string `json:"nets,omitempty"`
			Domains []string `json:"allowedEgressDomains,omitempty"`
		}
		err := spec(name(o), raw, &set)
		if err == nil {
			if _, e := ParseNets(set.Nets); e != nil {
				err = &Problem{Object: name(o), Field: "spec.nets", Problem: e.Error(), Fix: "correct it"}
			}
		}
		n := NetworkSet{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name, Labels: o.Metadata.Labels, Nets: set.Nets, Domains: set.Domains, Invalid: err != nil}
		s.NetworkSets = replace(s.NetworkSets, n, func(q *NetworkSet) bool { return q.Namespace == n.Namespace && q.Name == n.Name })
		return err
	case KindTier:
		var tier struct {
			Order         *float64 `json:"order,omitempty"`
			DefaultAction Action   `json:"defaultAction,omitempty"`
		}
		if err := spec(name(o), raw, &tier); err != nil {
			return err
		}
		t := Tier{Name: o.Metadata.Name, Order: math.Inf(1), DefaultAction: Deny}
		if tier.Order != nil {
			t.Order = *tier.Order
		}
		switch tier.DefaultAction {
		case "", Deny:
		case Pass:
			t.DefaultAction = Pass
		default:
			return &Problem{Object: name(o), Field: "spec.defaultAction", Problem: fmt.Sprintf("%q is neither Deny nor Pass", tier.DefaultAction), Fix: "correct it"}
		}
		s.Tiers = replace(s.Tiers, t, func(q *Tier) bool { return q.Name == t.Name })
	case KindHostEndpoint:
		h := HostEndpoint{Name: o.Metadata.Name, Labels: o.Metadata.Labels}
		s.HostEndpoints = replace(s.HostEndpoints, h, func(q *HostEndpoint) bool { return q.Name == h.Name })
	case KindIPPool:
		var pool struct {
			CIDR string `json:"cidr"`
		}
		var o2 struct {
			Spec any `json:"spec"`
		}
		o2.Spec = &pool // what else a pool says is not about policies
		if err := json.Unmarshal(raw, &o2); err != nil {
			return err
		}
		if _, err := ParseNets([]string{pool.CIDR}); err != nil {
			return &Problem{Object: name(o), Field: "spec.cidr", Problem: err.Error(), Fix: "correct it"}
		}
		s.IPPools = replace(s.IPPools, IPPool{o.Metadata.Name, pool.CIDR}, func(q *IPPool) bool { return q.Name == o.Metadata.Name })
	case "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy":
		s.Inert = append(s.Inert, Problem{Object: name(o), Problem: "a staged policy enforces nothing"})
	case "Profile":
		s.Inert = append(s.Inert, Problem{Object: name(o), Problem: "pods' profiles are made by Calico itself and allow what no policy is about"})
	default:
		s.Inert = append(s.Inert, Problem{Object: name(o), Problem: "not about policies"})
	}
	return nil
}

// spec reads an object's spec. A field that is not known is an error: it may be one that refuses.
func spec(object string, raw []byte, into any) error {
	var o struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return err
	}
	if len(o.Spec) == 0 || string(o.Spec) == "null" {
		return nil
	}
	strict, err := kjson.UnmarshalStrict(o.Spec, into)
	if err != nil {
		return badSpec(object, o.Spec, into, err)
	}
	var errs []error
	for _, e := range strict {
		field := "spec"
		problem := e.Error()
		if f, ok := strings.CutPrefix(problem, "unknown field "); ok {
			field, problem = "spec."+strings.Trim(f, `"`), "the field is not known here, and may change what the policy means"
		}
		errs = append(errs, &Problem{Object: object, Field: field, Problem: problem, Fix: "write the policy without it"})
	}
	return errors.Join(errs...)
}

// checkFields of a NetworkPolicy: those that only a GlobalNetworkPolicy has are dropped by Calico's API server, or refused.
func (p *Policy) checkFields() error {
	if p.Kind != KindNetworkPolicy {
		return nil
	}
	var errs []error
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"namespaceSelector", p.Spec.NamespaceSelector != ""}, {"doNotTrack", p.Spec.DoNotTrack},
		{"preDNAT", p.Spec.PreDNAT}, {"applyOnForward", p.Spec.ApplyOnForward},
	} {
		if f.set {
			errs = append(errs, &Problem{
				Object: p.String(), Field: "spec." + f.name, Problem: "a NetworkPolicy has no such field, only a GlobalNetworkPolicy",
				Fix: "take it out, if the policy is about its own namespace, as every NetworkPolicy is",
			})
		}
	}
	return errors.Join(errs...)
}

// replace the object of the same name, or append it: the last one counts, as with kubectl apply.
func replace[T any](list []T, o T, same func(*T) bool) []T {
	for i := range list {
		if same(&list[i]) {
			list[i] = o
			return list
		}
	}
	return append(list, o)
}

// Without is the set without those policies and with these NetworkPolicies of Kubernetes.
func (s *Set) Without(refused func(*Policy) bool, kubernetes []networkingv1.NetworkPolicy) *Set {
	out := *s
	out.Policies = nil
	for i := range s.Policies {
		if !refused(&s.Policies[i]) {
			out.Policies = append(out.Policies, s.Policies[i])
		}
	}
	out.Kubernetes = kubernetes
	return &out
}

// ParseNets reads CIDRs and single addresses, masked.
func ParseNets(nets []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, text := range nets {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("%q is not a network", text)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
