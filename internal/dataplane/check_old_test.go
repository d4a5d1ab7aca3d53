//go:build oldkernel

package dataplane_test

import (
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// `make test-kernels` runs this on a kernel before 6.6: the agent must say what is wrong, and not half work.
func TestKernelThatIsTooOld(t *testing.T) {
	opts := dataplane.Options{BPFFS: netnstest.BPFFS(t)}
	err := dataplane.Check(opts)
	if err == nil || !strings.Contains(err.Error(), "use Linux 6.6 or newer") {
		t.Errorf("Check: %v", err)
	}
	t.Log(err)
	if d, err := dataplane.New(opts); err == nil {
		t.Error("New succeeds")
		check(t, d.Close())
	}
}
