package manifests

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// TestTerraformExamples looks that each example is formatted as `terraform fmt` does it, and that every variable, local, resource and data source
// that it refers to is there. (`terraform validate` also needs the providers, which are not among our tools.)
func TestTerraformExamples(t *testing.T) {
	n := 0
	for _, file := range glob(t, "examples/terraform/*/versions.tf") {
		n++
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) { checkTerraform(t, dir) })
	}
	if n < 2 {
		t.Errorf("only %d examples were found", n)
	}
}

func checkTerraform(t *testing.T, dir string) {
	t.Helper()
	declared := map[string]bool{}
	var used []hcl.Traversal
	parser := hclparse.NewParser()
	files, err := filepath.Glob(filepath.Join(dir, "*.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text := read(t, file)
		parsed, diags := parser.ParseHCL(text, file)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if !bytes.Equal(hclwrite.Format(text), text) {
			t.Errorf("%s is not formatted: terraform fmt", filepath.Base(file))
		}
		body := parsed.Body.(*hclsyntax.Body)
		for _, block := range body.Blocks {
			declare(declared, block)
		}
		diags = hclsyntax.VisitAll(body, func(n hclsyntax.Node) hcl.Diagnostics {
			if e, ok := n.(*hclsyntax.ScopeTraversalExpr); ok {
				used = append(used, e.Traversal)
			}
			return nil
		})
		if diags.HasErrors() {
			t.Fatal(diags)
		}
	}
	for _, traversal := range used {
		if name := address(traversal); name != "" && !declared[name] {
			t.Errorf("%s: there is no %s", traversal.SourceRange(), name)
		}
	}
	if len(declared) < 4 || len(used) < 4 {
		t.Errorf("%d declarations and %d references were found", len(declared), len(used))
	}
}

// declare notes what a top-level block can be referred to by.
func declare(declared map[string]bool, b *hclsyntax.Block) {
	switch b.Type {
	case "variable":
		declared["var."+b.Labels[0]] = true
	case "locals":
		for name := range b.Body.Attributes {
			declared["local."+name] = true
		}
	case "data":
		declared["data."+b.Labels[0]+"."+b.Labels[1]] = true
	case "resource":
		declared[b.Labels[0]+"."+b.Labels[1]] = true
	}
}

// address is what a reference leads to, as "var.x"; "" where that is no declaration of ours.
func address(t hcl.Traversal) string {
	root := t.RootName()
	n := 2
	switch {
	case root == "data":
		n = 3
	case slices.Contains([]string{"each", "path", "string", "bool", "number"}, root):
		return ""
	case root == "list" || root == "scaling_config":
		return ""
	}
	names := []string{root}
	for _, step := range t[1:] {
		if attr, ok := step.(hcl.TraverseAttr); ok && len(names) < n {
			names = append(names, attr.Name)
		}
	}
	return strings.Join(names, ".")
}
