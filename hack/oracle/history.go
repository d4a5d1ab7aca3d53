package oracle

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// history draws a way in which the objects may have come about: from nothing at once; or one by one, with earlier versions,
// with objects that went again, with restarts of the controller and with agents that look in between.
func (d *dice) history(o *objects) *Scenario {
	if d.oneIn(3) {
		events := o.events()
		d.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		return &Scenario{Events: events}
	}
	var lives [][]Event // of each object, in order
	for _, e := range o.events() {
		lives = append(lives, append(d.past(e), e))
	}
	for i := range d.IntN(4) {
		e := Event{Do: Set, Pod: d.pod(pick(d, d.namespaces...), fmt.Sprintf("gone%d", i))}
		e.Pod.Status.PodIPs = nil // it had the address of one that there is
		for range d.IntN(3) {
			e.Pod.Status.PodIPs = append(e.Pod.Status.PodIPs, corev1.PodIP{IP: pick(d, d.addresses...).String()})
		}
		lives = append(lives, append(d.past(e), e, Event{Do: Delete, Pod: e.Pod}))
	}
	for i := range d.IntN(3) {
		e := Event{Do: Set, Policy: d.policy(pick(d, d.namespaces...), fmt.Sprintf("gone%d", i), 1)}
		lives = append(lives, append(d.past(e), e, Event{Do: Delete, Policy: e.Policy}))
	}
	for i := range d.IntN(3) {
		if len(o.clusterPolicies) > 0 {
			e := Event{Do: Set, ClusterPolicy: d.clusterPolicy(fmt.Sprint("gone", i))}
			lives = append(lives, append(d.past(e), e, Event{Do: Delete, ClusterPolicy: e.ClusterPolicy}))
		}
	}
	if d.oneIn(2) {
		lives = append(lives, d.foreign(o)...)
	}
	var running []*corev1.Pod // that a container runtime may report
	for _, key := range sortedNames(o.pods) {
		if policy.IsPeer(o.pods[key]) {
			running = append(running, o.pods[key])
		}
	}
	return &Scenario{Events: d.interleave(lives, running)}
}

// past draws what was there before under the name of an event's object.
func (d *dice) past(e Event) (out []Event) {
	for i := range pick(d, 0, 0, 1, 2) {
		old := Event{Do: Set}
		switch {
		case e.Namespace != nil:
			old.Namespace = d.namespace(e.Namespace.Name)
		case e.Pod != nil:
			old.Pod = d.pod(e.Pod.Namespace, e.Pod.Name)
			if d.oneIn(2) { // other labels only
				labels := old.Pod.Labels
				old.Pod = e.Pod.DeepCopy()
				old.Pod.Labels = labels
			}
		case e.Policy != nil:
			old.Policy = d.policy(e.Policy.Namespace, e.Policy.Name, -1-int64(i))
			if d.oneIn(3) {
				old.Policy.UID = types.UID(fmt.Sprint("old-", i))
			}
			if d.oneIn(4) { // nothing of it can be honoured, and what is in force stays
				old.Policy.Spec.PodSelector.MatchLabels = map[string]string{"no key": ""}
			}
		case e.Node != nil:
			old.Node = d.node(e.Node.Name)
			if d.oneIn(3) { // an address that a pod has
				old.Node.Status.Addresses[0].Address = pick(d, d.addresses...).String()
			}
		case e.ClusterPolicy != nil:
			old.ClusterPolicy = d.clusterPolicy(e.ClusterPolicy.Name)
			if d.oneIn(3) {
				old.ClusterPolicy.UID = types.UID(fmt.Sprint("old-", i))
			}
		}
		out = append(out, old)
		if d.oneIn(3) {
			old.Do = Delete
			out = append(out, old)
		}
	}
	return out
}

func (d *dice) interleave(lives [][]Event, running []*corev1.Pod) []Event {
	var order []int
	for i, events := range lives {
		order = append(order, slices.Repeat([]int{i}, len(events))...)
	}
	d.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	start := d.IntN(len(order) + 1)
	restart := -1
	if d.oneIn(2) {
		restart = start + d.IntN(len(order)+1-start)
	}
	back := restart + d.IntN(len(order)+1)/2
	var out []Event
	for at, i := range order {
		if at == start {
			out = append(out, Event{Do: Start})
		}
		if restart > start && at == restart {
			out = append(out, Event{Do: Stop})
		}
		if restart > start && at == back {
			out = append(out, Event{Do: Start})
		}
		out = append(out, lives[i][0])
		lives[i] = lives[i][1:]
		if at >= start {
			out = append(out, d.agentEvents(running)...)
		}
	}
	return out
}

// agentEvents draws what agents receive, and what happens to them, between two events of the API.
func (d *dice) agentEvents(pods []*corev1.Pod) (out []Event) {
	if d.oneIn(12) {
		return []Event{{Do: Sync}}
	}
	for range d.IntN(8) {
		out = append(out, Event{Do: Deliver, Pick: d.Uint64()})
	}
	for _, do := range [...]Action{Relist, Restart, Late} {
		if d.oneIn(20) {
			out = append(out, Event{Do: do, Pick: d.Uint64()})
		}
	}
	if len(pods) > 0 && d.oneIn(5) {
		out = append(out, Event{Do: RunSandbox, Pod: pick(d, pods...)})
	}
	return out
}
