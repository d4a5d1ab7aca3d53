package main

import (
	"fmt"
	"math"
	"strings"
)

// sample is a point of a line.
type sample struct{ x, y float64 }

// samples are the points' numbers, for the report.
func samples(at []sample) string {
	var parts []string
	for _, s := range at {
		parts = append(parts, fmt.Sprintf("%.0f", s.x))
	}
	return strings.Join(parts, ", ")
}

// slope fits a line by least squares, and returns its slope with the standard error.
func slope(at []sample) (slope, deviation float64) {
	n := float64(len(at))
	var mx, my float64
	for _, s := range at {
		mx, my = mx+s.x/n, my+s.y/n
	}
	var sxx, sxy float64
	for _, s := range at {
		sxx += (s.x - mx) * (s.x - mx)
		sxy += (s.x - mx) * (s.y - my)
	}
	slope = sxy / sxx
	var rest float64
	for _, s := range at {
		d := s.y - my - slope*(s.x-mx)
		rest += d * d
	}
	if n > 2 {
		deviation = math.Sqrt(rest / (n - 2) / sxx)
	}
	return slope, deviation
}
