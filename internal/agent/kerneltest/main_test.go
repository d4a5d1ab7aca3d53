// Package kerneltest has tests of the agent with the real kernel, on a node that is a network namespace. They need root.
package kerneltest

import (
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// The test's own namespace is the node.
func TestMain(m *testing.M) { netnstest.Main(m) }
