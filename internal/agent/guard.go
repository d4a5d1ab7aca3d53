package agent

import (
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
)

// GuardOf is how a Dataplane treats unknown addresses in a mode.
func GuardOf(mode node.Mode, audit bool) dataplane.Guard {
	switch {
	case mode == node.Standard:
		return dataplane.GuardOff
	case audit:
		return dataplane.GuardAudit
	}
	return dataplane.GuardOn
}
