package agentapi_test

import (
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/agentapi/skewtest"
)

// A report of an agent of the version before, which kubectl kidoban status reads from the agent or through the observer, with all its fields. The
// recording never changes: a new version gets a new one.
func TestARecordedReport(t *testing.T) {
	skewtest.Recorded(t, filepath.Join("testdata", "report.json"), agentapi.NodeReport{})
}
