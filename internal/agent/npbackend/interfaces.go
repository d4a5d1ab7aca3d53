package npbackend

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxPrefix is the most characters that the plugin's setting vethPrefix may have.
	maxPrefix = 4
	// maxInterfaces is far more than a pod can have.
	maxInterfaces = 64
)

// nameSuffix is the end of the name of the node's end of a pod's interface, after "eni", "vlan" or the setting vethPrefix.
func nameSuffix(pod types.NamespacedName, index int) string {
	text := pod.Namespace + "." + pod.Name
	if index > 0 {
		text = fmt.Sprintf("%s.%d", text, index)
	}
	sum := sha1.Sum([]byte(text))
	return hex.EncodeToString(sum[:])[:11]
}

// interfacesOf returns the indexes of the node's ends of a pod's interfaces, among those given.
func interfacesOf(pod types.NamespacedName, count int, all []net.Interface) ([]uint32, error) {
	var out []uint32
	for i := range max(count, 1) {
		suffix := nameSuffix(pod, i)
		found := false
		for _, link := range all {
			prefix, ok := strings.CutSuffix(link.Name, suffix)
			if ok && prefix != "" && len(prefix) <= maxPrefix {
				out, found = append(out, uint32(link.Index)), true
			}
		}
		if !found {
			return nil, fmt.Errorf("the node has no interface whose name ends with %s, of interface %d of pod %s", suffix, i, pod)
		}
	}
	return out, nil
}
