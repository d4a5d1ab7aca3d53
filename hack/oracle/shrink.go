package oracle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// maxTries bounds the time that shrinking takes.
const maxTries = 5000

// Shrink takes away what is not needed for the difference: events, then parts of policies, pods and namespaces, again and again
// until nothing can go.
func (d *Difference) Shrink() *Difference {
	tries := 0
	best := d
	try := func(s *Scenario) bool {
		if tries++; tries > maxTries {
			return false
		}
		smaller, same := best.again(s)
		if same {
			best = smaller
		}
		return same
	}
	try(atOnce(best.Scenario))
	for {
		progress := false
		for i := 0; i < len(best.Scenario.Events); {
			keep := needsNamespaces(best.Scenario) && best.Scenario.Events[i].Namespace != nil
			if !keep && try(&Scenario{Events: slices.Delete(slices.Clone(best.Scenario.Events), i, i+1)}) {
				progress = true
			} else {
				i++
			}
		}
		for i := range best.Scenario.Events {
			for n := 0; ; {
				variants := simpler(best.Scenario.Events[i])
				if n >= len(variants) {
					break
				}
				events := slices.Clone(best.Scenario.Events)
				events[i] = variants[n]
				if try(&Scenario{Events: events}) {
					progress = true
				} else {
					n++
				}
			}
		}
		if !progress || tries > maxTries {
			return best
		}
	}
}

// needsNamespaces: agents match the subject of a cluster policy by the labels of a namespace, and do not know whether it exists.
func needsNamespaces(s *Scenario) bool {
	return slices.ContainsFunc(s.Events, func(e Event) bool { return e.ClusterPolicy != nil })
}

// atOnce is the scenario without a history.
func atOnce(s *Scenario) *Scenario {
	o := newObjects()
	for i := range s.Events {
		o.apply(&s.Events[i])
	}
	return &Scenario{Events: o.events()}
}

// simpler returns an event with one thing less each.
func simpler(e Event) (out []Event) {
	switch {
	case e.Namespace != nil:
		for k := range e.Namespace.Labels {
			ns := e.Namespace.DeepCopy()
			delete(ns.Labels, k)
			out = append(out, Event{Do: e.Do, Namespace: ns})
		}
	case e.Pod != nil:
		for _, change := range simplerPod(e.Pod) {
			p := e.Pod.DeepCopy()
			change(p)
			out = append(out, Event{Do: e.Do, Pod: p})
		}
	case e.Policy != nil:
		for _, change := range simplerPolicy(e.Policy) {
			np := e.Policy.DeepCopy()
			change(np)
			out = append(out, Event{Do: e.Do, Policy: np})
		}
	case e.ClusterPolicy != nil:
		for _, change := range simplerClusterPolicy(e.ClusterPolicy) {
			p := e.ClusterPolicy.DeepCopy()
			change(p)
			out = append(out, Event{Do: e.Do, ClusterPolicy: p})
		}
	}
	return out
}

func simplerClusterPolicy(p *cnp.ClusterNetworkPolicy) (out []func(*cnp.ClusterNetworkPolicy)) {
	type change = func(*cnp.ClusterNetworkPolicy)
	add := func(c change) { out = append(out, c) }
	for i, r := range p.Spec.Ingress {
		add(func(p *cnp.ClusterNetworkPolicy) { p.Spec.Ingress = slices.Delete(p.Spec.Ingress, i, i+1) })
		for j := range r.Protocols {
			add(func(p *cnp.ClusterNetworkPolicy) {
				p.Spec.Ingress[i].Protocols = slices.Delete(p.Spec.Ingress[i].Protocols, j, j+1)
			})
		}
	}
	for i, r := range p.Spec.Egress {
		add(func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress = slices.Delete(p.Spec.Egress, i, i+1) })
		for j := range r.To {
			if len(r.To) > 1 {
				add(func(p *cnp.ClusterNetworkPolicy) { p.Spec.Egress[i].To = slices.Delete(p.Spec.Egress[i].To, j, j+1) })
			}
		}
		for j := range r.Protocols {
			add(func(p *cnp.ClusterNetworkPolicy) {
				p.Spec.Egress[i].Protocols = slices.Delete(p.Spec.Egress[i].Protocols, j, j+1)
			})
		}
	}
	return out
}

func simplerPod(p *corev1.Pod) (out []func(*corev1.Pod)) {
	for k := range p.Labels {
		out = append(out, func(p *corev1.Pod) { delete(p.Labels, k) })
	}
	for i := range p.Spec.InitContainers {
		out = append(out, func(p *corev1.Pod) { p.Spec.InitContainers = slices.Delete(p.Spec.InitContainers, i, i+1) })
	}
	for i := range p.Spec.Containers {
		out = append(out, func(p *corev1.Pod) { p.Spec.Containers = slices.Delete(p.Spec.Containers, i, i+1) })
		for j := range p.Spec.Containers[i].Ports {
			out = append(out, func(p *corev1.Pod) {
				p.Spec.Containers[i].Ports = slices.Delete(p.Spec.Containers[i].Ports, j, j+1)
			})
		}
	}
	for i := range p.Status.PodIPs {
		out = append(out, func(p *corev1.Pod) {
			p.Status.PodIPs = slices.Delete(p.Status.PodIPs, i, i+1)
			p.Status.PodIP = ""
			if len(p.Status.PodIPs) > 0 {
				p.Status.PodIP = p.Status.PodIPs[0].IP
			}
		})
	}
	if p.DeletionTimestamp != nil {
		out = append(out, func(p *corev1.Pod) { p.DeletionTimestamp = nil })
	}
	return out
}

func simplerPolicy(np *networkingv1.NetworkPolicy) (out []func(*networkingv1.NetworkPolicy)) {
	type change = func(*networkingv1.NetworkPolicy)
	add := func(c change) { out = append(out, c) }
	for i, r := range np.Spec.Ingress {
		add(func(np *networkingv1.NetworkPolicy) { np.Spec.Ingress = slices.Delete(np.Spec.Ingress, i, i+1) })
		for j := range r.From {
			if len(r.From) > 1 {
				add(func(np *networkingv1.NetworkPolicy) {
					np.Spec.Ingress[i].From = slices.Delete(np.Spec.Ingress[i].From, j, j+1)
				})
			}
			simplerPeer(&r.From[j], func(c func(*networkingv1.NetworkPolicyPeer)) {
				add(func(np *networkingv1.NetworkPolicy) { c(&np.Spec.Ingress[i].From[j]) })
			})
		}
		for j := range r.Ports {
			add(func(np *networkingv1.NetworkPolicy) {
				np.Spec.Ingress[i].Ports = slices.Delete(np.Spec.Ingress[i].Ports, j, j+1)
			})
		}
	}
	for i, r := range np.Spec.Egress {
		add(func(np *networkingv1.NetworkPolicy) { np.Spec.Egress = slices.Delete(np.Spec.Egress, i, i+1) })
		for j := range r.To {
			if len(r.To) > 1 {
				add(func(np *networkingv1.NetworkPolicy) {
					np.Spec.Egress[i].To = slices.Delete(np.Spec.Egress[i].To, j, j+1)
				})
			}
			simplerPeer(&r.To[j], func(c func(*networkingv1.NetworkPolicyPeer)) {
				add(func(np *networkingv1.NetworkPolicy) { c(&np.Spec.Egress[i].To[j]) })
			})
		}
		for j := range r.Ports {
			add(func(np *networkingv1.NetworkPolicy) {
				np.Spec.Egress[i].Ports = slices.Delete(np.Spec.Egress[i].Ports, j, j+1)
			})
		}
	}
	simplerSelector(&np.Spec.PodSelector, func(c func(*metav1.LabelSelector)) {
		add(func(np *networkingv1.NetworkPolicy) { c(&np.Spec.PodSelector) })
	})
	return out
}

func simplerPeer(p *networkingv1.NetworkPolicyPeer, add func(func(*networkingv1.NetworkPolicyPeer))) {
	switch {
	case p.IPBlock != nil:
		for i := range p.IPBlock.Except {
			add(func(p *networkingv1.NetworkPolicyPeer) { p.IPBlock.Except = slices.Delete(p.IPBlock.Except, i, i+1) })
		}
	case p.PodSelector != nil && p.NamespaceSelector != nil:
		add(func(p *networkingv1.NetworkPolicyPeer) { p.PodSelector = nil })
		add(func(p *networkingv1.NetworkPolicyPeer) { p.NamespaceSelector = nil })
	}
	if p.PodSelector != nil {
		simplerSelector(p.PodSelector, func(c func(*metav1.LabelSelector)) {
			add(func(p *networkingv1.NetworkPolicyPeer) { c(p.PodSelector) })
		})
	}
	if p.NamespaceSelector != nil {
		simplerSelector(p.NamespaceSelector, func(c func(*metav1.LabelSelector)) {
			add(func(p *networkingv1.NetworkPolicyPeer) { c(p.NamespaceSelector) })
		})
	}
}

func simplerSelector(s *metav1.LabelSelector, add func(func(*metav1.LabelSelector))) {
	for k := range s.MatchLabels {
		add(func(s *metav1.LabelSelector) { delete(s.MatchLabels, k) })
	}
	for i := range s.MatchExpressions {
		add(func(s *metav1.LabelSelector) { s.MatchExpressions = slices.Delete(s.MatchExpressions, i, i+1) })
	}
}
