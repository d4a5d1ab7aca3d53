package cli_test

import (
	"slices"
	"strings"
	"testing"
)

// TestCompletion asks for names as a shell does.
func TestCompletion(t *testing.T) {
	files := []string{"-f", "../../examples/shop", "-f", "../../examples/shop/policies"}
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{append([]string{"explain"}, append(files, "shop/")...), []string{"shop/backend", "shop/database", "shop/frontend"}},
		{append([]string{"explain"}, append(files, "shop/frontend", "shop/b")...), []string{"shop/backend"}},
		{append([]string{"matrix"}, append(files, "--to", "mon")...), []string{"monitoring/prometheus"}},
		{append([]string{"matrix"}, append(files, "-n", "")...), []string{"monitoring", "shop"}},
		{append([]string{"matrix"}, append(files, "--only", "")...), []string{"allowed", "denied"}},
	} {
		got := strings.Split(help(t, append([]string{"__complete"}, tc.args...)...), "\n")
		for _, want := range tc.want {
			if !slices.Contains(got, want) {
				t.Errorf("%q: %q, want %s", tc.args, got, want)
			}
		}
	}
}
