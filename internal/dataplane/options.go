package dataplane

import (
	"cmp"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// DefaultBPFFS is where the BPF file system is mounted on nearly every machine.
const DefaultBPFFS = "/sys/fs/bpf"

// EventMode is which verdicts become events. Counters count all of them, whatever it is.
type EventMode uint32

// The event modes.
const (
	EventsOff    = EventMode(bpf.FilterEventModeEVENTS_OFF)
	EventsDenied = EventMode(bpf.FilterEventModeEVENTS_DENIED) // denials, also those that only audit
	EventsAll    = EventMode(bpf.FilterEventModeEVENTS_ALL)    // and allowed packets of isolated pods
)

// Guard is what becomes of an unknown address behind an interface of a workload: a veth or a bridge that is
// no Uplink in compiler.Maps.
type Guard uint32

// The guards.
const (
	GuardOff   = Guard(bpf.FilterGuardGUARD_OFF)   // its packets pass
	GuardAudit = Guard(bpf.FilterGuardGUARD_AUDIT) // its packets are counted and reported as AuditDeny, and pass
	GuardOn    = Guard(bpf.FilterGuardGUARD_ON)    // its packets are denied in both directions, from the first one
)

// Options of a Dataplane. The zero value of a field means its default.
type Options struct {
	// BPFFS is where the BPF file system is mounted; DefaultBPFFS by default.
	BPFFS string
	// Sizes of the maps.
	Sizes Sizes
	// Events is which verdicts become events; EventsOff by default.
	Events EventMode
	// Records makes the program count every packet that is judged, for Dataplane.Records.
	Records bool
	// Guard is GuardOff by default.
	Guard Guard
	// Audit: packets that are denied for another reason than a pod's policies are counted and reported, and
	// pass. (For a pod's policies: compiler.Audit.)
	Audit bool
	// EventRate is how many events a second a pod may cause in the long run, and EventBurst how many at once.
	// By default 50 and 100. Packets beyond are counted for the pod (Repeats). With Unlimited every packet
	// makes an event, and none is a repeat. The same numbers hold for new kinds of records, apart from events.
	EventRate, EventBurst uint32
	// CountHits makes the program count for RuleHits.
	CountHits bool
	// Names are about DNS names in policies.
	Names NameOptions
	// Log gets a line for what happens once, such as taking over from another generation.
	Log logr.Logger
}

// Unlimited is an EventRate without a limit.
const Unlimited = ^uint32(0)

// Sizes are the most entries that each map can hold. An entry of a hash map (pods, addresses, rows) costs 72
// or 80 bytes when it is there, and 16 bytes for each that could be; one of a trie (networks, ports) about
// 100 bytes, only when it is there. The defaults cost 20 MiB, on a node of any size.
type Sizes struct {
	// Pods of this node, by address. Default 16384.
	Pods uint32
	// Addresses of every group in use on this node. Default 524288.
	Addresses uint32
	// Networks of every CIDR and except in use on this node. Default 1048576.
	Networks uint32
	// Rows: one for each set and class that it has rules about. Default 524288.
	Rows uint32
	// Ports of every port list; a range is at most 30 entries. Default 1048576.
	Ports uint32
	// Revoked are the served ports, and the peers, whose cut flows stay cut. Beyond them whole pods are
	// recorded, for which there is always room. Default 16384.
	Revoked uint32
	// Interfaces of this node that pods or the way out are behind. Default 16384.
	Interfaces uint32
	// Repeats are the kinds of packets, of those that make events, that are counted between two calls of
	// Repeats. Default 16384.
	Repeats uint32
	// Records are the kinds of packets that are counted between two calls of Dataplane.Records. Default 32768,
	// with Options.Records.
	Records uint32
	// Hits are the rules that RuleHits counts, three for each pod's defaults at most. Default 16384.
	Hits uint32
	// Domains are the patterns of DNS names in use on this node, and the names just above wildcards. Default 16384.
	Domains uint32
	// Resolvers are the trusted ones. Default 4096.
	Resolvers uint32
	// Learned are the addresses that names were learned to have. Default 65536.
	Learned uint32
	// Names are the resolved names whose addresses were learned, twice for both families. Default 16384.
	Names uint32
	// EventBytes is the size of the ring of events, a power of two and a multiple of the page size. Default 1
	// MiB, which is some 10,000 events.
	EventBytes uint32
}

// streams are the TCP connections with resolvers that can be followed at once.
func (s *Sizes) streams() uint32 { return min(512, s.Learned) }

// paces are those of events and of records: each pod may have one of both.
func (o Options) paces() uint32 {
	if o.Records {
		return 2 * o.Sizes.Pods
	}
	return o.Sizes.Pods
}

// missed are the addresses of which the program notes why they were not learned.
func (s *Sizes) missed() uint32 { return min(4096, s.Learned) }

// revocations are the records of cut flows: each pod may be one for TCP and one for other protocols.
func (s *Sizes) revocations() uint32 { return s.Revoked + 2*s.Pods }

func (o Options) withDefaults() Options {
	o.BPFFS = cmp.Or(o.BPFFS, DefaultBPFFS)
	o.EventRate, o.EventBurst = cmp.Or(o.EventRate, 50), cmp.Or(o.EventBurst, 100)
	o.Sizes = Sizes{
		Pods:       cmp.Or(o.Sizes.Pods, 1<<14),
		Addresses:  cmp.Or(o.Sizes.Addresses, 1<<19),
		Networks:   cmp.Or(o.Sizes.Networks, 1<<20),
		Rows:       cmp.Or(o.Sizes.Rows, 1<<19),
		Ports:      cmp.Or(o.Sizes.Ports, 1<<20),
		Revoked:    cmp.Or(o.Sizes.Revoked, 1<<14),
		Interfaces: cmp.Or(o.Sizes.Interfaces, 1<<14),
		Repeats:    cmp.Or(o.Sizes.Repeats, 1<<14),
		Records:    cmp.Or(o.Sizes.Records, 1<<15),
		Hits:       cmp.Or(o.Sizes.Hits, 1<<14),
		Domains:    cmp.Or(o.Sizes.Domains, 1<<14),
		Resolvers:  cmp.Or(o.Sizes.Resolvers, 1<<12),
		Learned:    cmp.Or(o.Sizes.Learned, 1<<16),
		Names:      cmp.Or(o.Sizes.Names, 1<<14),
		EventBytes: cmp.Or(o.Sizes.EventBytes, 1<<20),
	}
	if o.Names.MinTTL, o.Names.MaxTTL = cmp.Or(o.Names.MinTTL, 30*time.Second), cmp.Or(o.Names.MaxTTL, time.Hour); !o.Names.On {
		o.Sizes.Learned, o.Sizes.Names = 1, 1 // the program writes them, so they would have all of their memory from the start
	}
	if !o.Records {
		o.Sizes.Records = 1
	}
	return o
}
