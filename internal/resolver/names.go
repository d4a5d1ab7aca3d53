package resolver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// maxName is the maximum length of an object's name (a DNS subdomain).
const maxName = 253

// endpointName returns the name of a policy's PolicyEndpoint. Policies that differ in kind, namespace, name
// or UID have different ones.
func endpointName(kind string, name types.NamespacedName, uid types.UID) string {
	suffix := "-" + digest(10, kind, name.Namespace, name.Name, string(uid))
	stem := name.Name
	if len(stem) > maxName-len(suffix) {
		stem = strings.TrimRight(stem[:maxName-len(suffix)], ".-")
	}
	return stem + suffix
}

// Kinds of groups, by where their pods are. Slices of shared groups and of groups of nodes are in the shared namespace.
const (
	localGroup  = "local"  // of one namespace
	sharedGroup = "shared" // of several namespaces
	nodesGroup  = "nodes"  // of nodes
)

// groupDigits are 128 bits: an attacker who looks for selectors with the name of another group does not find any.
const groupDigits = 32

// groupName returns the name of a group, by its kind and its selectors; port is nil for a group of all ports.
func groupName(kind string, set *podSet, port *policy.NamedPort) string {
	parts := []string{kind, "", set.pods.key(), ""}
	if set.namespaces != nil {
		parts[1] = set.namespaces.key()
	}
	if port != nil {
		parts[3] = fmt.Sprintf("%d %d %s", port.Protocol, port.Port, port.Name)
	}
	return "g-" + digest(groupDigits, append(parts, set.within.keys()...)...)
}

// digest hashes strings to n hexadecimal digits. It hashes their lengths too, so that different lists have
// different input.
func digest(n int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:n]
}
