package agent

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/kidoban/kidoban/internal/httpserver"
)

// Live are the checks that call for a restart of the process when one fails. The writer may take httpserver.StalledAfter for one round: reading all maps
// of a large node takes a second.
func (a *Agent) Live() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"loop": func(*http.Request) error {
			if last := a.round.Load(); last != nil && time.Since(*last) > httpserver.StalledAfter {
				return fmt.Errorf("the loop that writes the kernel's maps has not come round since %s", last.Format(time.RFC3339))
			}
			return nil
		},
		"maps-writable": func(*http.Request) error { return a.kernel.CheckMaps() },
	}
}

// Ready are the checks that pass while the node's policies are in force.
func (a *Agent) Ready() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"watches-synced": func(*http.Request) error {
			if !a.synced.Load() {
				return errors.New("waiting for the API server; the policies that an earlier agent left, if any, stay in force")
			}
			return nil
		},
		"policies-in-force": func(*http.Request) error {
			if !a.applied.isInForce() {
				return errors.New("this agent's policies are not in force yet")
			}
			return nil
		},
		"programming":    func(*http.Request) error { return a.applied.lastFailure() },
		"links-attached": func(*http.Request) error { return a.kernel.CheckLinks() },
	}
}
