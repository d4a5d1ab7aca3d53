package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kidoban/kidoban/e2e/cluster"
)

// An Overlay is a kustomization of a clone with other images.
type Overlay struct {
	// Root of the clone.
	Root string
	// Base is a kustomization's directory there, as config/default.
	Base string
	// Tag of the images, which are on the nodes; empty: the base's.
	Tag string
	// Components are names in config/components.
	Components []string
	// Agents holds, if it is not empty, the YAML that replaces the DaemonSet's spec.updateStrategy.
	Agents string
}

// Apply applies the overlay.
func (o Overlay) Apply(ctx context.Context, c *cluster.Cluster) error {
	return o.Use(func(dir string) error {
		_, err := cluster.Output(c.Kubectl(ctx, "apply", "-k", dir))
		return err
	})
}

// Use calls f with the directory of a kustomization, which is gone afterwards.
func (o Overlay) Use(f func(dir string) error) (err error) {
	parent := filepath.Join(o.Root, "dist") // which version control ignores
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(parent, "overlay-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(o.kustomization()), 0o644); err != nil {
		return err
	}
	return f(dir)
}

func (o Overlay) kustomization() string {
	var b strings.Builder
	fmt.Fprintf(&b, "resources: [../../%s]\n", filepath.ToSlash(o.Base))
	for i, component := range o.Components {
		if i == 0 {
			b.WriteString("components:\n")
		}
		fmt.Fprintf(&b, "- ../../config/components/%s\n", component)
	}
	if o.Tag != "" {
		b.WriteString("images:\n")
		for _, half := range []string{"controller", "agent"} {
			fmt.Fprintf(&b, "- {name: kidoban.dev/%s, newTag: %s}\n", half, o.Tag)
		}
	}
	if o.Agents != "" {
		fmt.Fprintf(&b, `patches:
- target: {kind: DaemonSet, name: kidoban-agent}
  patch: |-
    - {op: replace, path: /spec/updateStrategy, value: %s}
`, o.Agents)
	}
	return b.String()
}
