package agent

import (
	"context"
	"iter"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
)

// Kernel is everything that an Agent asks of the node's kernel. NewKernel makes one from a Dataplane. Its methods may be called at the same time,
// except those of Maps and Links, which the writer's goroutine alone calls.
type Kernel interface {
	Maps
	Links
	Connections
	Counts
	Interfaces
	Names

	// CheckMaps and CheckLinks are the health checks of both.
	CheckMaps() error
	CheckLinks() error
}

// Maps are the BPF maps of this agent's program.
type Maps interface {
	// Apply makes the changes, in their order. It may be called again after an error.
	Apply(compiler.Changes) error
	// Sync makes the maps equal to want. It calls between after each part that it has read, so that an Apply need not wait for the rest: what
	// between has applied counts as right. An error of between ends it. between may be nil.
	Sync(want *compiler.Maps, between func() error) (dataplane.Drift, error)
	// FailClosed isolates the pods whose entries are not in the maps as they should be, after Sync has failed. It returns their addresses' number.
	FailClosed(want *compiler.Maps) (isolated int, err error)
}

// Links are what attaches this agent's program to the kernel's hooks.
type Links interface {
	// Alone reports whether no other agent's program is attached.
	Alone() (bool, error)
	// EarlierIsolation returns the addresses that other agents' programs isolate, by direction.
	EarlierIsolation() (map[netip.Addr][2]bool, error)
	// Attach attaches the program and detaches all others.
	Attach() error
	// Heal attaches again what was detached. It returns the number of detached links, and dataplane.ErrSuperseded if a later agent has taken over.
	Heal() (detached int, err error)
}

// Connections are conntrack's entries.
type Connections interface {
	// Flows returns the live flows to and from these addresses, some at a time.
	Flows(addrs ...netip.Addr) iter.Seq2[[]conntrack.Flow, error]
	// EstablishedTimeout is how long conntrack keeps a TCP connection without packets.
	EstablishedTimeout() time.Duration
	// Cut ends flows, and keeps their servers from opening them again for so long. If a later agent has taken over, it returns
	// dataplane.ErrSuperseded.
	Cut(flows []conntrack.Flow, hold time.Duration) error
	// NodeAddresses are the node's own.
	NodeAddresses() (map[netip.Addr]bool, error)
}

// Names are what the program has learned of DNS names.
type Names interface {
	// LearnsNames reports whether the program learns at all.
	LearnsNames() bool
	// Patterns are the numbers of patterns that an earlier agent learned under, and the last number that it may have given to one.
	Patterns() (map[string]compiler.PatternID, compiler.PatternID)
	// PatternsOf are the patterns that an address was learned under, also those whose time is over.
	PatternsOf(netip.Addr) []compiler.PatternID
	// ValidPatternsOf are those of PatternsOf whose time is not over.
	ValidPatternsOf(netip.Addr) []compiler.PatternID
	// MissOf is why an address that an answer led to was not learned, as far as that is known.
	MissOf(netip.Addr) (dataplane.Miss, bool)
	// LearnedNames are the names that were resolved, also what has expired and was not removed yet.
	LearnedNames() ([]dataplane.LearnedName, error)
	// SetReadsOwn makes the program read the answers of resolvers on the node itself, or not. It may be called again after an error.
	SetReadsOwn(bool) error
	// ForgetNames removes what has expired.
	ForgetNames() error
}

// Counts are what the program counts.
type Counts interface {
	Usage() []dataplane.MapUsage
	Counters() (dataplane.Counters, error)
	RuleHits() (map[dataplane.Hit]uint64, error)
	ForgetHits(dataplane.Hit) error
}

// Interfaces are the node's links and routes, and its settings.
type Interfaces interface {
	ReadInterfaces() (node.Interfaces, error)
	// ReadUnseen reads the interfaces of pods whose traffic the program does not see, by the network namespace that they are in.
	ReadUnseen() (map[node.NetNS][]node.Link, error)
	// WatchInterfaces calls changed after links or routes changed, until the context is done.
	WatchInterfaces(ctx context.Context, changed func()) error
	// ReadTunnels reads what the node decapsulates.
	ReadTunnels() (*inspect.Tunnels, error)
	// WatchTunnels calls changed after tunnels may have changed, until the context is done.
	WatchTunnels(ctx context.Context, changed func()) error
	// SetTunnels makes the program deny what comes from no end of a tunnel. It may be called again after an error.
	SetTunnels(*inspect.Tunnels) error
	// SetJudgesLocal makes the program judge traffic from pods to the node itself, or not. It may be called again after an error.
	SetJudgesLocal(bool) error
	// Warnings are the conditions under which some traffic on this node bypasses enforcement.
	Warnings() []inspect.Warning
}
