// Package nodetest has tests of the agent and the dataplane together, on a node that is a network namespace.
package nodetest

import (
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// The test's own namespace is the node.
func TestMain(m *testing.M) { netnstest.Main(m) }
