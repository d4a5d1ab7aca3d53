package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// cacheRoot is where binaries are kept between clusters and clones.
func cacheRoot() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no directory for the built binaries: %w; set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "kidoban"), nil
}

// cacheKey names what is built from the directories below hack: the version of the
// module that matters, and a hash of every file that the build reads. Tests are not among them.
func cacheKey(hack, module string, dirs []string) (string, error) {
	version, err := requiredVersion(filepath.Join(hack, dirs[0], "go.mod"), module)
	if err != nil {
		return "", err
	}
	var files []string
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(hack, dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && !strings.HasSuffix(path, "_test.go") {
				files = append(files, path)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	slices.Sort(files)
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", runtime.GOARCH)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		name, err := filepath.Rel(hack, file)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %x\n", name, sha256.Sum256(b))
	}
	return fmt.Sprintf("%s-%s-%s", moduleName(module), version, hex.EncodeToString(sum.Sum(nil))[:12]), nil
}

// moduleName is the last element of a module's path that is not a major version.
func moduleName(module string) string {
	elems := strings.Split(module, "/")
	last := elems[len(elems)-1]
	if len(elems) > 1 && len(last) > 1 && last[0] == 'v' && strings.Trim(last[1:], "0123456789") == "" {
		last = elems[len(elems)-2]
	}
	return last
}

// requiredVersion is the version that a go.mod asks of a module.
func requiredVersion(gomod, module string) (string, error) {
	b, err := os.ReadFile(gomod)
	if err != nil {
		return "", err
	}
	f, err := modfile.Parse(gomod, b, nil)
	if err != nil {
		return "", err
	}
	for _, r := range f.Require {
		if r.Mod.Path == module {
			return r.Mod.Version, nil
		}
	}
	return "", fmt.Errorf("%s does not require %s", gomod, module)
}

// findHack looks for the directory hack of this repo, from dir upwards.
func findHack(dir string) (string, error) {
	for {
		hack := filepath.Join(dir, "hack")
		_, err := os.Stat(filepath.Join(hack, "testenv", "go.mod"))
		if err == nil {
			return hack, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", errors.New("no hack/testenv/go.mod here or above: call this inside a clone of the repo")
		}
		dir = parent
	}
}
