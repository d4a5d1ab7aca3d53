package agentapi

import (
	"net/netip"
	"time"
)

// NameList is the answer of /v1/names: the DNS names of policies whose addresses the node has learned, ordered by name and pattern.
type NameList struct {
	Node string `json:"node"`
	// Resolvers whose answers count, with the port at which they answer; port 0 is every port.
	Resolvers []netip.AddrPort `json:"resolvers"`
	Names     []LearnedName    `json:"names"`
	// BehindBridge is how many DNS answers came through a bridge since the node's program was loaded. They teach nothing: any pod behind the
	// bridge could have sent them.
	BehindBridge uint64 `json:"behindBridge,omitempty"`
}

// LearnedName is a name that pods of the node resolved.
type LearnedName struct {
	Name string `json:"name"`
	// Pattern of policies that covers the name: the name itself, or a wildcard.
	Pattern   string           `json:"pattern"`
	Addresses []LearnedAddress `json:"addresses"`
}

// LearnedAddress is an address of a name. New connections to it are allowed by the name's rules until then.
type LearnedAddress struct {
	Address netip.Addr `json:"address"`
	Until   time.Time  `json:"until"`
}
