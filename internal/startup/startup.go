// Package startup is what both binaries do in the same way before they start to work.
package startup

import (
	"fmt"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// CheckFree fails where an address cannot be listened on, with the name of the flag that says it. "0" and "" stand for none.
func CheckFree(flag, addr string) error {
	if addr == "0" || addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("%s=%s cannot be listened on; give another address by the flag: %w", flag, addr, err)
	}
	return l.Close()
}

// Mapper makes a manager's RESTMapper of kinds that are known beforehand. Without asking the API server for them, a process can
// start while it is away, and wait.
func Mapper(namespaced, cluster []schema.GroupVersionKind) func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	for _, k := range namespaced {
		m.Add(k, meta.RESTScopeNamespace)
	}
	for _, k := range cluster {
		m.Add(k, meta.RESTScopeRoot)
	}
	return func(*rest.Config, *http.Client) (meta.RESTMapper, error) { return m, nil }
}
