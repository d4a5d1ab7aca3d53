package node

import (
	"cmp"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// Options of a Node.
type Options struct {
	// SharedNamespace holds the groups that cross namespaces: kidoban's own namespace.
	SharedNamespace string
	// Audit counts and logs denials while the packets pass. v1alpha1.LabelEnforcement of a namespace overrides it.
	Audit bool
	// Mode applies to pods that no policy selects. Standard by default.
	Mode Mode
	// Budget is what the policies on one pod may cost in one direction; compiler.DefaultBudget by default.
	Budget compiler.Cost
	// Capacity is how many entries the kernel's maps can hold; there is no limit by default. Each of this many Namespaces is guaranteed
	// an equal share of them; compiler.DefaultNamespaces by default.
	Capacity   compiler.Usage
	Namespaces int
	// DomainNames: names in policies are enforced. Without it policies with names isolate.
	DomainNames bool
	// Patterns are the numbers that an earlier agent gave to patterns of names, and LastPattern is the last that it may have given.
	Patterns    map[string]compiler.PatternID
	LastPattern compiler.PatternID
	// ClusterPolicies: no pod is compiled before ClusterSynced.
	ClusterPolicies bool
}

// compilerOptions are those of the compiler among the Options.
func (o *Options) compilerOptions() []compiler.Option {
	options := []compiler.Option{compiler.WithBudget(cmp.Or(o.Budget, compiler.DefaultBudget))}
	if o.DomainNames {
		options = append(options, compiler.WithPatterns(o.Patterns, o.LastPattern))
	}
	if o.Capacity != (compiler.Usage{}) {
		options = append(options, compiler.WithCapacity(o.Capacity, cmp.Or(o.Namespaces, compiler.DefaultNamespaces)))
	}
	return options
}

// Node is the state of one node. The zero value is not usable: see New. A Node is not safe for concurrent use.
type Node struct {
	opts     Options
	compiler *compiler.Compiler
	revision Revision
	now      time.Time // of the event that is being taken in

	namespaces map[string]*namespace
	sandboxes  map[types.NamespacedName]sandbox
	// awaitsCluster: the ClusterPolicyEndpoints are not all here yet.
	awaitsCluster bool
	runtime       bool // the container runtime reports when a sandbox stops
	pods          map[types.NamespacedName]*pod
	owners        map[netip.Addr][]types.NamespacedName // pods that claim an address; never empty
	departed      map[netip.Addr]departed
	named         map[netip.Addr]PodName  // of owner
	former        map[netip.Addr]departed // that had it before the owner
	unapplied     unapplied
	own           map[types.NamespacedName]struct{} // pods with a second entry: see compileOwn

	interfaces  Interfaces
	netns       map[NetNS]*netns
	routed      map[netip.Addr]*netns             // by address; nil: routes lead to it in several
	owned       map[types.NamespacedName][]*netns // by the pod
	unseenLinks map[NetNS][]Link

	policies    map[types.NamespacedName]*endpoint
	byNamespace map[string]map[types.NamespacedName]*endpoint
	waiting     map[types.NamespacedName]struct{} // policies with a version that waits for its groups

	groups     map[policy.GroupKey]*group
	slices     map[types.NamespacedName]*policy.Slice
	wanted     map[policy.GroupKey]int // references from versions that are in force or wait
	groupUsers map[policy.GroupKey]int // of these, those from versions that are in force
	resolvers  map[netip.AddrPort]int  // trusted ones, with the number of slices that have them
}

// Revision counts the events that a Node has taken in.
type Revision uint64

// New returns a Node without pods and policies. It wants the shared namespace from the start.
func New(opts Options) *Node {
	opts.Mode = cmp.Or(opts.Mode, Standard)
	return &Node{
		opts: opts, awaitsCluster: opts.ClusterPolicies,
		compiler:    compiler.New(opts.compilerOptions()...),
		namespaces:  map[string]*namespace{opts.SharedNamespace: newNamespace()},
		sandboxes:   map[types.NamespacedName]sandbox{},
		pods:        map[types.NamespacedName]*pod{},
		own:         map[types.NamespacedName]struct{}{},
		owners:      map[netip.Addr][]types.NamespacedName{},
		departed:    map[netip.Addr]departed{},
		named:       map[netip.Addr]PodName{},
		former:      map[netip.Addr]departed{},
		owned:       map[types.NamespacedName][]*netns{},
		unapplied:   unapplied{pods: map[types.NamespacedName]bool{}},
		policies:    map[types.NamespacedName]*endpoint{},
		byNamespace: map[string]map[types.NamespacedName]*endpoint{},
		waiting:     map[types.NamespacedName]struct{}{},
		groups:      map[policy.GroupKey]*group{},
		slices:      map[types.NamespacedName]*policy.Slice{},
		wanted:      map[policy.GroupKey]int{},
		groupUsers:  map[policy.GroupKey]int{},
		resolvers:   map[netip.AddrPort]int{},
	}
}

// begin starts an event.
func (n *Node) begin(now time.Time) {
	n.now = now
	n.revision++
}

// Revision is that of the last event.
func (n *Node) Revision() Revision { return n.revision }

// Commit returns the writes that bring the kernel's maps from the last Commit to the current Revision.
func (n *Node) Commit() (compiler.Changes, Revision) { return n.compiler.Commit(), n.revision }

// Step returns a part of what Commit returns, and whether there is more. It stops after about this many of the compiler's steps, so that no
// policy delays the others for long; pods in first come first. The revision is reached when there is no more.
func (n *Node) Step(steps int, first []types.NamespacedName) (changes compiler.Changes, revision Revision, more bool) {
	keys := make([]string, len(first))
	for i, key := range first {
		keys[i] = key.String()
	}
	changes, more = n.compiler.Step(steps, keys...)
	return changes, n.revision, more
}

// Collect returns the writes that remove what nothing has used since before the last Collect. Call it after a Commit.
func (n *Node) Collect() compiler.Changes { return n.compiler.Collect() }

// Maps are the entries that the kernel's maps should hold after the last Commit, Step or Collect. Only these methods change them.
func (n *Node) Maps() *compiler.Maps { return n.compiler.Maps() }

// Rule returns what a rule ID stands for; false if it is no longer in use.
func (n *Node) Rule(id compiler.RuleID) (compiler.RuleRef, bool) { return n.compiler.Rule(id) }

// Set returns the policies that a set is made of, in the order of evaluation, and the direction; nil if the set is no longer in use.
func (n *Node) Set(id compiler.SetID) ([]*policy.Policy, policy.Direction) {
	policies := n.compiler.Set(id)
	if policies == nil {
		return nil, 0
	}
	return policies, n.compiler.DirectionOf(id)
}

// IsUnfinished reports whether there is something to do for a Step, which Collect may cause.
func (n *Node) IsUnfinished() bool { return n.compiler.IsUnfinished() }

// IsCrowded reports whether some policies do not fit into the maps.
func (n *Node) IsCrowded() bool { return n.compiler.IsCrowded() }

// Problems are the policies that cost more than the compiler's budget, or do not fit into the maps: they isolate their pods and allow
// nothing.
func (n *Node) Problems() []compiler.Problem { return n.compiler.Problems() }

// lastSeen returns a pod's object as it was last seen, or nil.
func (n *Node) lastSeen(key types.NamespacedName) *corev1.Pod {
	if ns := n.namespaces[key.Namespace]; ns != nil {
		return ns.pods[key]
	}
	return nil
}
