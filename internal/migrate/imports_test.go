package migrate

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// TestImports checks that nothing but the commands of migrate imports these packages.
func TestImports(t *testing.T) {
	const own = "github.com/kidoban/kidoban/internal/migrate"
	files := 0
	for _, root := range []string{"../../api", "../../cmd", "../../internal", "../../e2e", "../../hack"} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			if dir := filepath.ToSlash(path); strings.HasPrefix(dir, "../../internal/migrate/") || strings.HasPrefix(dir, "../../internal/cli/migrate/") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
			if err != nil {
				return err
			}
			files++
			for _, i := range file.Imports {
				if name := strings.Trim(i.Path.Value, `"`); name == own || strings.HasPrefix(name, own+"/") {
					t.Errorf("%s imports %s", path, name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files == 0 {
		t.Fatal("no Go file was read")
	}
}
