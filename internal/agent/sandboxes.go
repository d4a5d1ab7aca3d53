package agent

import (
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A sandbox is what the container runtime has made for a pod: it has the pod's addresses before a container runs, and
// before the pod's status has them.
type sandbox struct {
	id        string
	process   bool // the runtime said that it had one; not all runtimes do
	addresses []netip.Addr
	// replaced is the pod of the same name that was here before; what the API server still tells of it is of the past.
	replaced types.UID
	// standIn is what is known of a pod that the API server has not told of, or has no more; nil for others.
	standIn *corev1.Pod
	// former have not stopped yet: of pods of the same name that were deleted by force. They are judged as the pod is.
	former []sandbox
}

// all are the addresses of the sandbox and of the former ones.
func (sb sandbox) all() []netip.Addr {
	out := sb.addresses
	for _, f := range sb.former {
		out = slices.Concat(out, f.addresses)
	}
	return out
}

// setSandbox takes in a sandbox that is about to get its first container. uid and labels are the pod's, for the case that the API server has
// not told of it yet; uid is empty where the API server has another. Without the pod's object its named ports are not known, and match nothing.
func (s *state) setSandbox(key types.NamespacedName, uid types.UID, labels map[string]string, sb sandbox) {
	before := s.sandboxes[key]
	sb.replaced, sb.standIn = before.replaced, before.standIn
	obj := s.lastSeen(key)
	isOther := obj != nil && uid != "" && obj.UID != uid
	if isOther {
		sb.replaced = obj.UID
	}
	if obj == nil || isOther {
		obj = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name, UID: uid, Labels: labels, CreationTimestamp: metav1.NewTime(time.Now()),
		}}
		sb.standIn = obj
	}
	s.sandboxes[key] = sb
	s.setPod(obj)
}

// deleteSandbox forgets a sandbox. The pod keeps the addresses that its status has; one that the API
// server never told of, or has no more, goes with it, for nobody will say that it has gone.
func (s *state) deleteSandbox(key types.NamespacedName, id string) {
	sb := s.sandboxes[key]
	former := slices.DeleteFunc(slices.Clone(sb.former), func(f sandbox) bool { return f.id == id })
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
		delete(s.sandboxes, key)
	} else {
		s.sandboxes[key] = sb
	}
	switch obj := s.lastSeen(key); {
	case obj == nil:
	case isLast && obj == sb.standIn:
		s.deletePod(key)
	default:
		s.setPod(obj)
	}
}

// isPast reports whether what is told of a pod is of one that another has taken the place of.
func (s *state) isPast(key types.NamespacedName, uid types.UID) bool {
	return uid != "" && uid == s.sandboxes[key].replaced
}

func (s *state) lastSeen(key types.NamespacedName) *corev1.Pod {
	if ns := s.namespaces[key.Namespace]; ns != nil {
		return ns.pods[key]
	}
	return nil
}

// judges reports whether the tables hold a pod's addresses, or another pod's claim to them.
func (s *state) judges(key types.NamespacedName) bool {
	p := s.pods[key]
	return p != nil && !slices.ContainsFunc(p.addresses, func(addr netip.Addr) bool {
		_, ok := s.compiler.Maps().Pods[addr]
		return !ok
	})
}
