package node

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Sandbox is what the container runtime reports about a sandbox that it has made for a pod. The sandbox has the pod's addresses before a
// container runs, and before the pod's status has them.
type Sandbox struct {
	Pod types.NamespacedName
	// UID and Labels are the pod's, for the case that its object is not here yet. UID is empty where the API server has another one: a
	// static pod's mirror has a UID of its own.
	UID    types.UID
	Labels map[string]string
	ID     string
	// Process reports whether the sandbox has a process; one that has stopped has none. Not all runtimes report any.
	Process bool
	// Addresses are the pod's own; none for a pod on the host's network.
	Addresses []netip.Addr
}

// sandbox is the current sandbox of a pod.
type sandbox struct {
	box
	// replaced is the pod of the same name that was here before: what the API server still reports about it is outdated.
	replaced types.UID
	// standIn takes the place of an object that the API server has not sent yet, or has deleted; nil for other pods.
	standIn *corev1.Pod
	// former have not stopped yet: sandboxes of pods of the same name that were deleted by force. The pod's policies apply to them, too.
	former []box
}

type box struct {
	id        string
	process   bool
	addresses []netip.Addr
}

func boxOf(s Sandbox) box { return box{id: s.ID, process: s.Process, addresses: s.Addresses} }

// allAddresses are those of the sandbox and of the former ones.
func (sb sandbox) allAddresses() []netip.Addr {
	out := sb.addresses
	for _, f := range sb.former {
		out = slices.Concat(out, f.addresses)
	}
	return out
}

// RunSandbox takes in a sandbox that is about to get its first container. Without the pod's object its named ports are not known, and match
// nothing.
func (n *Node) RunSandbox(now time.Time, s Sandbox) {
	n.begin(now)
	before := n.sandboxes[s.Pod]
	former := slices.DeleteFunc(slices.Clone(before.former), func(f box) bool { return f.id == s.ID })
	if n.runtime && before.id != "" && before.id != s.ID { // the runtime has not reported that it stopped
		former = append(former, before.box)
	}
	n.setSandbox(s, former)
}

// SyncSandboxes takes in all sandboxes that there are when the connection to the container runtime is made: those that started or stopped
// while there was none.
func (n *Node) SyncSandboxes(now time.Time, all []Sandbox) {
	n.begin(now)
	n.runtime = true
	there, processes := map[string]bool{}, map[string]bool{}
	running := map[types.NamespacedName][]Sandbox{}
	for _, s := range all {
		there[s.ID], processes[s.ID] = true, s.Process
		if s.Process && len(s.Addresses) > 0 {
			running[s.Pod] = append(running[s.Pod], s)
		}
	}
	for key, same := range running {
		// Several may have a name, of pods that were deleted by force: the API server has the last.
		last, obj := len(same)-1, n.lastSeen(key)
		for i, s := range same {
			if obj != nil && s.UID == obj.UID {
				last = i
			}
		}
		var former []box
		for i, s := range same {
			if i != last {
				former = append(former, boxOf(s))
			}
		}
		n.setSandbox(same[last], former)
	}
	for key, sb := range n.sandboxes {
		for _, known := range append(slices.Clone(sb.former), sb.box) {
			if !there[known.id] || known.process && !processes[known.id] {
				n.stopSandbox(key, known.id)
			}
		}
	}
}

// HasSandbox reports whether the container runtime has reported a sandbox of a pod, which has not stopped.
func (n *Node) HasSandbox(key types.NamespacedName) bool {
	_, ok := n.sandboxes[key]
	return ok
}

// RuntimeGone takes in that the connection to the container runtime is lost: it does not report any more when a sandbox stops.
func (n *Node) RuntimeGone(now time.Time) {
	n.begin(now)
	n.runtime = false
}

// StopSandbox takes in that a sandbox has stopped or was removed. The pod keeps the addresses that its status has. A pod whose object never
// came, or was deleted, goes with its sandbox: no other event will report that it is gone.
func (n *Node) StopSandbox(now time.Time, key types.NamespacedName, id string) {
	n.begin(now)
	n.stopSandbox(key, id)
}

func (n *Node) setSandbox(s Sandbox, former []box) {
	before := n.sandboxes[s.Pod]
	sb := sandbox{box: boxOf(s), replaced: before.replaced, standIn: before.standIn, former: former}
	obj := n.lastSeen(s.Pod)
	isOther := obj != nil && s.UID != "" && obj.UID != s.UID
	if isOther {
		sb.replaced = obj.UID
	}
	if obj == nil || isOther {
		obj = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Pod.Namespace, Name: s.Pod.Name, UID: s.UID, Labels: s.Labels, CreationTimestamp: metav1.NewTime(n.now),
		}}
		sb.standIn = obj
	}
	n.sandboxes[s.Pod] = sb
	n.setPod(obj)
}

func (n *Node) stopSandbox(key types.NamespacedName, id string) {
	sb := n.sandboxes[key]
	former := slices.DeleteFunc(slices.Clone(sb.former), func(f box) bool { return f.id == id })
	switch {
	case len(former) < len(sb.former):
		sb.former = former
	case id != "" && sb.id == id:
		sb.id, sb.addresses = "", nil
	default:
		return
	}
	isLast := sb.id == "" && len(sb.former) == 0
	if isLast {
		delete(n.sandboxes, key)
	} else {
		n.sandboxes[key] = sb
	}
	switch obj := n.lastSeen(key); {
	case obj == nil:
	case isLast && obj == sb.standIn:
		n.forgetPod(key)
	default:
		n.setPod(obj)
	}
}

// isReplaced reports whether a pod's object is outdated: a sandbox of another pod of the same name has taken its place.
func (n *Node) isReplaced(key types.NamespacedName, uid types.UID) bool {
	return uid != "" && uid == n.sandboxes[key].replaced
}
