//go:build browser

package uitest

import (
	"bytes"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

func parse(text []byte) (*model.Cluster, error) {
	m := &model.Manifests{Namespace: "shop"}
	if err := m.Read("manifests", bytes.NewReader(text)); err != nil {
		return nil, err
	}
	return m.Cluster()
}

func shop(t *testing.T) *model.Cluster {
	t.Helper()
	c, err := model.ReadPaths([]string{"../../examples/shop", "../../examples/shop/policies"}, "default", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLook(t *testing.T) {
	for name, hash := range map[string]string{
		"map": "", "edge": "sel=shop/frontend>shop/backend", "denied": "off=&sel=shop/frontend>shop/database", "matrix": "as=matrix&off=", "table": "as=table&off=",
		"policies": "view=policies", "workload": "view=workload&sel=shop/backend", "flows": "view=flows", "whatif": "view=whatif",
	} {
		b := open(t, shop(t), hash)
		b.text("new Promise(done => setTimeout(() => done(''), 600))")
		b.picture(name)
	}
}
