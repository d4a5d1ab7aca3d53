package cli

import (
	"strings"
	"testing"
)

func TestVersionsThatDoNotWorkTogether(t *testing.T) {
	one := func(version string) map[string]int { return map[string]int{version: 1} }
	for name, tc := range map[string]struct {
		of   Versions
		want []string
	}{
		"the same":         {Versions{Client: "v1.4.0", Controller: one("v1.4.2"), Agents: one("v1.4.0"), Observer: one("v1.4.0")}, nil},
		"during upgrade":   {Versions{Client: "v1.4.0", Controller: one("v1.4.0"), Agents: map[string]int{"v1.3.0": 1, "v1.5.0": 2}, Observer: one("v1.3.9")}, []string{"observer v1.3.9 and agents v1.5.0"}},
		"an old plugin":    {Versions{Client: "v1.2.0", Controller: one("v1.4.0"), Agents: one("v1.3.0")}, []string{"client v1.2.0 and controller v1.4.0"}},
		"another major":    {Versions{Client: "v2.0.0", Agents: one("v1.0.0")}, []string{"client v2.0.0 and agents v1.0.0"}},
		"not known":        {Versions{Client: "(devel)", Controller: one("dev"), Agents: one("sha256:0123"), Observer: one("latest")}, nil},
		"without observer": {Versions{Client: "v1.4.0", Controller: one("v1.3.0"), Agents: one("v1.4.1")}, nil},
	} {
		got := tc.of.apart()
		if len(got) != len(tc.want) {
			t.Errorf("%s: %q", name, got)
			continue
		}
		for i, want := range tc.want {
			if !strings.HasPrefix(got[i], want+" are more than one minor version apart") {
				t.Errorf("%s: %q, want %q", name, got[i], want)
			}
		}
	}
}
