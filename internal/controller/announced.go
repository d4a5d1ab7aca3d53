package controller

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/stream"
)

const (
	// maxAnnounced is the number of addresses that a pod may announce.
	maxAnnounced = 8
	// The API server's objects have no longer names. A message may be much larger.
	maxUID, maxNamespace, maxName = 64, 63, 253
	// Announcements of one node per second, and at once: those of all of its pods when its agent has started again. Each one that is accepted
	// may cost writes of slices, which all agents receive.
	announceRate, announceBurst = 50, 600
)

// fits reports whether an object can have this UID and this name.
func fits(uid, namespace, name string) bool {
	return len(uid) <= maxUID && len(namespace) <= maxNamespace && len(name) <= maxName
}

// isReport reports whether the state of a policy can be one of an object of the API server.
func isReport(p *stream.PolicyState) bool {
	isCluster := p.GetKind() == stream.PolicyState_CLUSTER_POLICY_ENDPOINT
	if p.GetKind() != stream.PolicyState_POLICY_ENDPOINT && !isCluster || isCluster != (p.GetNamespace() == "") {
		return false // a kind of a newer version
	}
	return fits(p.GetUid(), p.GetNamespace(), p.GetName()) && len(p.GetReason()) <= maxUID
}

// announcedAddresses reads the addresses of an announcement, each once; false if a pod cannot have them.
func announcedAddresses(raw [][]byte) (out []netip.Addr, ok bool) {
	if len(raw) == 0 || len(raw) > maxAnnounced {
		return nil, false
	}
	for _, bytes := range raw {
		addr, ok := netip.AddrFromSlice(bytes)
		addr = addr.Unmap()
		if !ok || !addr.IsGlobalUnicast() {
			return nil, false
		}
		if !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out, true
}

// camelCase turns POD_UNKNOWN into PodUnknown.
func camelCase(name string) string {
	var out strings.Builder
	for _, word := range strings.Split(strings.ToLower(name), "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}
