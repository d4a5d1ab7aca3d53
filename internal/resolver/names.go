package resolver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// maxName is the length of an object's name at most (a DNS subdomain).
const maxName = 253

// endpointName names the PolicyEndpoint of a policy. Policies that differ in kind, namespace, name or UID have different ones.
func endpointName(kind string, name types.NamespacedName, uid types.UID) string {
	suffix := "-" + digest(10, kind, name.Namespace, name.Name, string(uid))
	stem := name.Name
	if len(stem) > maxName-len(suffix) {
		stem = strings.TrimRight(stem[:maxName-len(suffix)], ".-")
	}
	return stem + suffix
}

// kinds of groups, by where their pods and their slices are.
const (
	localGroup  = "local"  // of one namespace
	sharedGroup = "shared" // of many, in the shared one
	// ofSharedNamespace is a local group of the shared namespace. Agents look for a name there when they have not seen it in the policy's
	// own namespace yet, and must not take this for that.
	ofSharedNamespace = "local to the shared namespace"
)

// groupName names a group by its kind and what it selects; port is nil for a group of all ports.
func groupName(kind string, set *podSet, port *policy.NamedPort) string {
	parts := []string{kind, "", set.pods.key(), ""}
	if set.namespaces != nil {
		parts[1] = set.namespaces.key()
	}
	if port != nil {
		parts[3] = fmt.Sprintf("%d %d %s", port.Protocol, port.Port, port.Name)
	}
	return "g-" + digest(16, append(parts, set.within.keys()...)...)
}

// digest hashes strings to n hexadecimal digits. Lengths go in too, so that no two lists look alike.
func digest(n int, parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s,", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:n]
}
