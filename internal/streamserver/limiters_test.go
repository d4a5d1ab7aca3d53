package streamserver

import (
	"testing"
	"time"
)

// Each key has a limit of its own. A limiter is forgotten when that changes nothing for its key.
func TestLimiters(t *testing.T) {
	const perSecond, burst = 50, 600
	l, now := NewLimiters[string](perSecond, burst, 0), time.Unix(1_800_000_000, 0)
	count := func(node string, tries int) (allowed int) {
		for range tries {
			if l.Of(node).AllowN(now, 1) {
				allowed++
			}
		}
		return allowed
	}
	left := func(want int) {
		t.Helper()
		if len(l.all) != want {
			t.Errorf("left are %v, want %d", l.all, want)
		}
	}
	if n := count("n1", 10_000); n != burst {
		t.Errorf("%d at once, want %d", n, burst)
	}
	if n := count("n2", 10); n != 10 {
		t.Errorf("%d of another node, want 10", n)
	}
	now = now.Add(time.Second)
	l.Forget(now, func(node string) bool { return node == "n2" })
	left(2)
	l.Forget(now, nil) // n2 has recovered
	left(1)
	if n := count("n1", 10_000); n != perSecond {
		t.Errorf("%d in the next second, want %d", n, perSecond)
	}
}

// A key too many makes the others forgotten, and one that is there does not.
func TestLimitersAreBounded(t *testing.T) {
	l := NewLimiters[string](1, 1, 2)
	for _, step := range []struct {
		key  string
		left int
	}{{"a", 1}, {"b", 2}, {"a", 2}, {"c", 1}, {"a", 2}} {
		if l.Of(step.key); len(l.all) != step.left {
			t.Errorf("after %s: %d, want %d", step.key, len(l.all), step.left)
		}
	}
}
