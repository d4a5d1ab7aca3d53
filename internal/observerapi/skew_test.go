package observerapi_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/kidoban/kidoban/internal/agentapi/skewtest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Answers of the version before. The recordings never change: a new version gets new ones.
func TestRecordedAnswers(t *testing.T) {
	for name, of := range map[string]any{
		"flows": observerapi.FlowList{}, "hits": observerapi.HitList{}, "status": observerapi.Status{}, "node": observerapi.NodeReport{},
		"followed-flow": observerapi.FollowedLine{}, "followed-missing": observerapi.Missing{},
	} {
		t.Run(name, func(t *testing.T) {
			skewtest.Recorded(t, filepath.Join("testdata", name+".json"), of, "labels", "namespaceLabels", "report")
		})
	}
}

// A line of a later version is neither a flow nor a loss.
func TestFollowedLinesOfOtherVersions(t *testing.T) {
	for text, isFlow := range map[string]bool{
		`{"protocol":"TCP","connections":1}`: true, `{"losses":[{"node":"n1"}]}`: false, `{"missed":3}`: false, `{"ofALaterVersion":1}`: false, `{}`: false,
	} {
		var l observerapi.FollowedLine
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.IsFlow() != isFlow {
			t.Errorf("%s is a flow: %t, %v", text, l.IsFlow(), err)
		}
	}
}
