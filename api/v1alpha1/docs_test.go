package v1alpha1_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

//go:generate go test -run TestTypesAreDocumented . -update

var update = flag.Bool("update", false, "write docs/api.md")

const docsFile = "../../docs/api.md"

// TestTypesAreDocumented compares docs/api.md with the doc comments and markers of the types, or writes it.
func TestTypesAreDocumented(t *testing.T) {
	types, err := parseTypes(".")
	if err != nil {
		t.Fatal(err)
	}
	want := render(types)
	if *update {
		if err := os.WriteFile(docsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/api.md differs from the types: run `go generate ./api/...`")
	}
}

// apiType is a type of the API as its source describes it.
type apiType struct {
	text    string
	markers []string
	goType  string // of a type that is not a struct
	fields  []field
}

type field struct {
	name, goType, text string
	markers            []string
}

func (a *apiType) isKind() bool { return slices.Contains(a.markers, "+kubebuilder:object:root=true") }

func parseTypes(dir string) (map[string]*apiType, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	out := map[string]*apiType{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") || strings.HasPrefix(filepath.Base(file), "zz_") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		for _, decl := range parsed.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok && gen.Tok == token.TYPE {
				spec := gen.Specs[0].(*ast.TypeSpec)
				out[spec.Name.Name] = parseType(spec, gen.Doc)
			}
		}
	}
	return out, nil
}

func parseType(spec *ast.TypeSpec, doc *ast.CommentGroup) *apiType {
	out := &apiType{}
	out.text, out.markers = split(doc)
	s, ok := spec.Type.(*ast.StructType)
	if !ok {
		out.goType = typeName(spec.Type)
		return out
	}
	tag := regexp.MustCompile(`json:"([^",]*)`)
	for _, f := range s.Fields.List {
		if len(f.Names) == 0 || f.Tag == nil { // TypeMeta, ObjectMeta
			continue
		}
		name := tag.FindStringSubmatch(f.Tag.Value)[1]
		if name == "-" {
			continue
		}
		text, markers := split(f.Doc)
		out.fields = append(out.fields, field{name, typeName(f.Type), text, markers})
	}
	return out
}

// split separates a comment's text from its markers. Paragraphs of the text are separated by empty lines.
func split(doc *ast.CommentGroup) (text string, markers []string) {
	if doc == nil {
		return "", nil
	}
	var lines []string
	for _, c := range doc.List {
		line := strings.TrimSpace(strings.TrimPrefix(c.Text, "//"))
		if strings.HasPrefix(line, "+") {
			markers = append(markers, line)
		} else {
			lines = append(lines, line)
		}
	}
	return strings.TrimSpace(strings.Join(lines, "\n")), markers
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		return "[]" + typeName(e.Elt)
	case *ast.SelectorExpr:
		return typeName(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return fmt.Sprintf("%T", e)
}

const intro = `<!-- Generated from api/v1alpha1 by "make generate". -->
# API reference

The kinds of ` + "`networking.kidoban.dev/v1alpha1`" + `, with which kidoban's controller and its agents work together.
[Concepts](concepts.md) explains them, [config/samples](../config/samples) has one of each, and
[Extending](extending.md) describes how to write them with a controller of your own. ` + "`kubectl explain policyendpoint.spec`" + `
shows the same text.

`

// render writes the kinds first, and then the types that they use.
func render(types map[string]*apiType) string {
	var kinds, others []string
	for _, name := range slices.Sorted(maps.Keys(types)) {
		switch {
		case strings.HasSuffix(name, "List"):
		case types[name].isKind():
			kinds = append(kinds, name)
		default:
			others = append(others, name)
		}
	}
	var b strings.Builder
	b.WriteString(intro)
	for _, k := range kinds {
		fmt.Fprintf(&b, "- [%s](#%s)\n", k, strings.ToLower(k))
	}
	for _, name := range slices.Concat(kinds, others) {
		a := types[name]
		heading := "###"
		if a.isKind() {
			heading = "##"
		} else if name == others[0] {
			b.WriteString("\n## Types\n")
		}
		fmt.Fprintf(&b, "\n%s %s\n\n%s\n", heading, name, a.text)
		if a.isKind() {
			fmt.Fprintf(&b, "\n%s\n", scope(a.markers))
		}
		if facts := facts(a); len(facts) > 0 {
			fmt.Fprintf(&b, "\n%s\n", strings.Join(facts, "\n"))
		}
		if len(a.fields) > 0 {
			b.WriteString("\n")
		}
		for _, f := range a.fields {
			fmt.Fprintf(&b, "- **`%s`** (%s)%s\n", f.name, link(f.goType, types), required(f.markers))
			for _, line := range strings.Split(f.text, "\n") {
				fmt.Fprintf(&b, "  %s\n", line)
			}
			if facts := checks(f.markers); len(facts) > 0 {
				fmt.Fprintf(&b, "  <br>%s\n", strings.Join(facts, "\n  "))
			}
		}
	}
	return b.String()
}

func scope(markers []string) string {
	scope, short := "Namespaced", ""
	for _, m := range markers {
		if options, ok := strings.CutPrefix(m, "+kubebuilder:resource:"); ok {
			for _, o := range strings.Split(options, ",") {
				key, value, _ := strings.Cut(o, "=")
				switch key {
				case "scope":
					scope = value
				case "shortName":
					short = value
				}
			}
		}
	}
	return fmt.Sprintf("Scope: %s. Short name: `%s`.", scope, short)
}

// link links to a type of this package, or to the Kubernetes API reference's word for it.
func link(goType string, types map[string]*apiType) string {
	element, isList := strings.CutPrefix(goType, "[]")
	out := element
	if types[element] != nil {
		out = fmt.Sprintf("[%s](#%s)", element, strings.ToLower(element))
	} else if _, name, ok := strings.Cut(element, "."); ok {
		out = name
	}
	if isList {
		return "list of " + out
	}
	return out
}

func required(markers []string) string {
	if slices.Contains(markers, "+required") {
		return ", required"
	}
	return ""
}

var factNames = []struct{ marker, text string }{
	{"+default=", "Default: `%s`"},
	{"+kubebuilder:validation:Enum=", "One of `%s`"},
	{"+kubebuilder:validation:ExactlyOneOf=", "Exactly one of `%s` must be set"},
	{"+kubebuilder:validation:Minimum=", "Minimum: %s"},
	{"+kubebuilder:validation:Maximum=", "Maximum: %s"},
	{"+kubebuilder:validation:MinLength=", "Minimum length: %s"},
	{"+kubebuilder:validation:MaxLength=", "Maximum length: %s"},
	{"+kubebuilder:validation:MinItems=", "Minimum number of items: %s"},
	{"+kubebuilder:validation:MaxItems=", "Maximum number of items: %s"},
	{"+kubebuilder:validation:Pattern=", "Pattern: `%s`"},
}

// facts are what the schema checks of a type.
func facts(a *apiType) []string {
	if a.goType == "" {
		return checks(a.markers)
	}
	return append([]string{"A " + a.goType + "."}, checks(a.markers)...)
}

func checks(markers []string) (out []string) {
	message := regexp.MustCompile(`message="([^"]*)"`)
	for _, m := range markers {
		for _, f := range factNames {
			if value, ok := strings.CutPrefix(m, f.marker); ok {
				out = append(out, fmt.Sprintf(f.text, strings.ReplaceAll(strings.Trim(value, "`\""), ";", "`, `"))+".")
			}
		}
		if strings.Contains(m, ":XValidation:") {
			out = append(out, "Checked: "+message.FindStringSubmatch(m)[1]+".")
		}
	}
	return out
}
