package observer

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A replica that has restarted without its flows is not asked while there is one that has them.
func TestTheReplicaWithTheLongestHistory(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		began []time.Time // zero: no answer
		want  string
	}{
		"one":             {[]time.Time{{}}, "a"},
		"the second":      {[]time.Time{now, now.Add(-time.Hour)}, "b"},
		"the first":       {[]time.Time{now.Add(-time.Hour), now}, "a"},
		"no answer of a":  {[]time.Time{{}, now}, "b"},
		"no answer of b":  {[]time.Time{now, {}}, "a"},
		"no answer":       {[]time.Time{{}, {}}, "a"},
		"one of three":    {[]time.Time{now, {}, now.Add(-time.Minute)}, "c"},
		"the same moment": {[]time.Time{now, now}, "a"},
	} {
		var replicas []*Observer
		times := map[*Observer]time.Time{}
		for i, at := range tc.began {
			o := &Observer{Pod: corev1.Pod{}}
			o.Pod.Name = string(rune('a' + i))
			replicas, times[o] = append(replicas, o), at
		}
		got := longest(context.Background(), replicas, func(_ context.Context, o *Observer) (time.Time, error) {
			if times[o].IsZero() {
				return time.Time{}, errors.New("away")
			}
			return times[o], nil
		})
		if got.Pod.Name != tc.want {
			t.Errorf("%s: %s, want %s", name, got.Pod.Name, tc.want)
		}
	}
}

func TestAccount(t *testing.T) {
	for flag, want := range map[string]string{"": "kidoban-system/kidoban-viewer", "shop/flows": "shop/flows"} {
		if got, err := accountOf(flag, "kidoban-system"); err != nil || got.String() != want {
			t.Errorf("%q: %s, %v; want %s", flag, got, err, want)
		}
	}
	for _, flag := range []string{"flows", "/flows", "shop/", "shop/flows/x"} {
		if got, err := accountOf(flag, "kidoban-system"); err == nil {
			t.Errorf("%q: %s", flag, got)
		}
	}
}
