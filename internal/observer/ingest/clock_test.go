package ingest

import (
	"testing"
	"time"
)

// A push that waited shows no other clock than those around it. A clock that was set is seen within a minute.
func TestClock(t *testing.T) {
	begin := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	for name, tc := range map[string]struct {
		pushes [][2]int // sent by the observer's clock, received
		ahead  func(sent int) int
		want   int // seconds
	}{
		"right":                    {[][2]int{{0, 0}, {5, 5}}, func(int) int { return 0 }, 0},
		"minutes late":             {[][2]int{{0, 0}, {5, 5}}, func(int) int { return -200 }, -200},
		"the store was slow":       {[][2]int{{0, 0}, {5, 35}, {10, 36}, {15, 37}}, func(int) int { return 90 }, 90},
		"the observer was stopped": {[][2]int{{0, 0}, {5, 30}}, func(int) int { return 0 }, 0},
		"set forward":              {[][2]int{{0, 0}, {5, 5}, {10, 10}}, func(sent int) int { return sent / 10 * 60 }, 60},
		"set back":                 {[][2]int{{0, 0}, {5, 5}, {70, 70}}, func(sent int) int { return -sent / 10 * 60 }, -420},
	} {
		var clocks clocks
		var offset time.Duration
		for _, p := range tc.pushes {
			offset = clocks.of("n1").sent(at(p[0]+tc.ahead(p[0])), at(p[1]))
		}
		want := time.Duration(tc.want) * time.Second
		if got := clocks.of("n1").ahead(); got != want || offset != -want {
			t.Errorf("%s: %s ahead, offset %s, want %s", name, got, offset, want)
		}
	}
	var clocks clocks
	if clocks.of("n1").ahead() != 0 {
		t.Error("a node that has not pushed has a clock")
	}
	for i := range 10 * maxSamples {
		clocks.of("n1").sent(at(i), at(i))
	}
	if n := len(clocks.of("n1").samples); n > maxSamples {
		t.Errorf("%d samples", n)
	}
	for i := range maxClocks + 10 {
		clocks.of(string(rune(i)))
	}
	if n := len(clocks.all); n > maxClocks {
		t.Errorf("%d clocks", n)
	}
}
