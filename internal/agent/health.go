package agent

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// stalled is how long the loop may take for one round: reading all maps of a large node takes a second.
const stalled = 2 * time.Minute

// Live are the checks of a process that had better be started again when one fails.
func (a *Agent) Live() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"loop": func(*http.Request) error {
			if last := a.round.Load(); last != nil && time.Since(*last) > stalled {
				return fmt.Errorf("the loop that writes the kernel's maps stands still since %s", last.Format(time.RFC3339))
			}
			return nil
		},
		"maps-writable": func(*http.Request) error { return a.dp.CheckMaps() },
	}
}

// Ready are the checks of an agent by which the node is enforced as it should be.
func (a *Agent) Ready() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"watches-synced": func(*http.Request) error {
			if !a.synced.Load() {
				return errors.New("waiting for the API server: what an earlier agent left in force, if there was one, is what judges")
			}
			return nil
		},
		"policies-in-force": func(*http.Request) error {
			if !a.inForce.Load() {
				return errors.New("this agent's policies do not judge yet")
			}
			return nil
		},
		"programming": func(*http.Request) error {
			if err := a.failure.Load(); err != nil {
				return *err
			}
			return nil
		},
		"links-attached": func(*http.Request) error { return a.dp.CheckLinks() },
	}
}
