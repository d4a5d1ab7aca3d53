package oracle

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
)

// 200,000 flows. `make fuzz FLOWS=N SEED=M` does more, and others.
const (
	testSeeds       = 8
	testFlowsPerRun = 25_000
)

func TestAllJudgesAgree(t *testing.T) {
	for seed := range uint64(testSeeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			stats, failure := Run(t.Context(), Options{Seed: seed, Flows: testFlowsPerRun, Workers: 1})
			if failure != nil {
				failure.Difference = failure.Shrink()
				t.Fatal(failure)
			}
			checkStats(t, stats)
		})
	}
}

// checkStats fails where a run compares less than it seems to: every judge must be asked about every flow, cyclonus where there are no
// cluster policies, and the flows must tell something.
func checkStats(t *testing.T, s Stats) {
	t.Helper()
	for name, atLeast := range map[string]int64{
		"cluster": 2 * s.Flows, "engine": 2 * s.Flows, "maps": 2 * s.Flows, "kube-network-policies": 2 * s.Flows, "cyclonus": s.Flows / 2,
		"cluster" + audit: s.Flows / 2, "maps" + audit: s.Flows / 2, "kube-network-policies" + audit: s.Flows / 2,
	} {
		if s.Comparisons[name] < atLeast {
			t.Errorf("%s was asked %d times about %d flows in both directions", name, s.Comparisons[name], s.Flows)
		}
	}
	for _, tier := range []policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy, policy.TierBaseline} {
		if s.Denied[tier.String()] < s.Flows/100 {
			t.Errorf("%s denies %d of %d flows only", tier, s.Denied[tier.String()], s.Flows)
		}
	}
	if s.Flows < testFlowsPerRun || s.Isolated < s.Flows/4 || s.Allowed < s.Isolated/10 || s.Isolated-s.Allowed < s.Isolated/10 {
		t.Errorf("the flows tell little:\n%v", s)
	}
}

// Where the judges once differed. Seeds change their meaning with the dice; the scenarios in testdata, shrunk, do not.
func TestDifferencesOfThePast(t *testing.T) {
	for _, tc := range []struct {
		seed, iteration uint64
		what            string
	}{
		{1, 33, "the reference did not know IPv4 blocks written as IPv6"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			stats := NewStats()
			if diff := Iterate(tc.seed, tc.iteration, &stats); diff != nil {
				t.Fatal(&Failure{tc.seed, tc.iteration, diff.Shrink()})
			}
		})
	}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var r Recorded
			if err := yaml.UnmarshalStrict(data, &r); err != nil {
				t.Fatal(err)
			}
			if diff := r.Judge(); diff != nil {
				t.Fatal(&Failure{Difference: diff})
			}
		})
	}
}
