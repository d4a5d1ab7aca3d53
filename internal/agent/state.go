package agent

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// state is what this node knows, as plain data: it can be asked nothing that it was not told, and tells the compiler all that follows.
type state struct {
	sharedNamespace string // kidoban's own, where the groups are that cross namespaces
	audit           bool   // of pods whose namespace does not say
	mode            Mode
	compiler        *compiler.Compiler

	namespaces map[string]*namespace
	sandboxes  map[types.NamespacedName]sandbox // what the container runtime said, sooner than the API server
	runtime    bool                             // the container runtime says when a sandbox stops
	pods       map[types.NamespacedName]*pod
	owners     map[netip.Addr][]types.NamespacedName // never empty
	departed   map[netip.Addr]departed
	landing    landing

	interfaces *dataplane.Interfaces
	routed     map[netip.Addr]uint32 // interfaces.Routed by address; 0: several lead to it

	policies    map[types.NamespacedName]*endpoint
	byNamespace map[string]map[types.NamespacedName]*endpoint
	waiting     map[types.NamespacedName]struct{} // policies with a version that waits for its groups

	groups     map[policy.GroupKey]*group
	groupUsers map[policy.GroupKey]int // mentions in policies that are in force
}

func newState(sharedNamespace string) *state {
	return &state{
		sharedNamespace: sharedNamespace,
		mode:            Standard,
		compiler:        compiler.New(),
		namespaces:      map[string]*namespace{sharedNamespace: {pods: map[types.NamespacedName]*corev1.Pod{}}},
		sandboxes:       map[types.NamespacedName]sandbox{},
		pods:            map[types.NamespacedName]*pod{},
		owners:          map[netip.Addr][]types.NamespacedName{},
		departed:        map[netip.Addr]departed{},
		interfaces:      &dataplane.Interfaces{},
		routed:          map[netip.Addr]uint32{},
		landing:         landing{pods: map[types.NamespacedName]*pod{}},
		policies:        map[types.NamespacedName]*endpoint{},
		byNamespace:     map[string]map[types.NamespacedName]*endpoint{},
		waiting:         map[types.NamespacedName]struct{}{},
		groups:          map[policy.GroupKey]*group{},
		groupUsers:      map[policy.GroupKey]int{},
	}
}
