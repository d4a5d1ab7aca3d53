package cli

import (
	"fmt"
	"maps"
	"slices"

	semver "k8s.io/apimachinery/pkg/util/version"
)

// apart describes the components that communicate and are more than one minor version apart. Tags that are not versions are left out: what they
// stand for is not known.
func (v *Versions) apart() (out []string) {
	client := map[string]int{v.Client: 1}
	for _, pair := range []struct {
		a, b     string
		ofA, ofB map[string]int
	}{
		{"client", "controller", client, v.Controller}, {"client", "agents", client, v.Agents}, {"client", "observer", client, v.Observer},
		{"controller", "agents", v.Controller, v.Agents}, {"observer", "agents", v.Observer, v.Agents},
	} {
		for _, a := range slices.Sorted(maps.Keys(pair.ofA)) {
			for _, b := range slices.Sorted(maps.Keys(pair.ofB)) {
				if areApart(a, b) {
					out = append(out, fmt.Sprintf("%s %s and %s %s are more than one minor version apart: see docs/upgrade.md", pair.a, a, pair.b, b))
				}
			}
		}
	}
	return out
}

func areApart(a, b string) bool {
	x, err := semver.ParseSemantic(a)
	if err != nil {
		return false
	}
	y, err := semver.ParseSemantic(b)
	if err != nil {
		return false
	}
	minors := []uint{x.Minor(), y.Minor()}
	return x.Major() != y.Major() || slices.Max(minors)-slices.Min(minors) > 1
}
