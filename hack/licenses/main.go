// Command licenses looks at the licence of every module that is linked into our binaries, and fails where one is not among those that we may
// pass on in binaries of our own.
//
//	licenses [--list] [DIR]
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are permissive licences: they ask for their text and the copyright to be kept, and for nothing of our code.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Zlib", "CC0-1.0", "Unlicense"}

// notices are files beside a module's licence that are mostly prose, with the SPDX identifiers of what they say about code that is linked. They
// were read by us: another version of a file has another sum and must be read again.
var notices = map[string][]string{
	// modernc.org/libc v1.80.1: Go, musl, go-netdb, nixpkgs.
	"f597097efe3d97021f89170746bd3a0fb9a8b6fb26b82043ed68a4e0283bee6c": {"BSD-3-Clause", "MIT"},
	// modernc.org/memory v1.12.1: where its logo comes from, which is not linked.
	"5ae5bee3072a841376451b48d8cfcec7188e10543926d5870828d36c8a750dc5": {"BSD-3-Clause"},
	// modernc.org/sqlite v1.62.0: SQLite is in the public domain; the others that are linked are under BSD-3-Clause or MIT.
	"f4a00ade8f4057ab0ea49097d9c459df8559fcf10ca78da0c950343fb7428d37": {"BSD-3-Clause", "MIT"},
	// modernc.org/sqlite v1.62.0: SQLite's dedication to the public domain.
	"8438c9c89b849131ead81d5435cb97fcf052df5b0b286dda8a2d4c29e6cb3fd0": {"BSD-3-Clause"},
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[sc]e|copying)`)

// covered is how much of a licence file, in per cent, has to be text of licences: what is left are copyright lines and titles.
const covered = 75

func main() {
	list := flag.Bool("list", false, "print module, version and licences")
	flag.Parse()
	dir := "."
	if flag.NArg() > 0 {
		dir = flag.Arg(0)
	}
	modules, err := linked(dir)
	if err == nil {
		err = check(modules, *list)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

type module struct {
	Path, Version, Dir string
	Main               bool
}

// linked are the modules that give a package to a binary below cmd.
func linked(dir string) ([]module, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Module", "./cmd/...")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	found := map[string]module{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var pkg struct{ Module *module }
		err := decoder.Decode(&pkg)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if pkg.Module != nil && !pkg.Module.Main {
			found[pkg.Module.Path] = *pkg.Module
		}
	}
	var modules []module
	for _, m := range found {
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	if len(modules) == 0 {
		return nil, errors.New("no module is linked: is this the root of the repo?")
	}
	return modules, nil
}

func check(modules []module, list bool) error {
	var errs []error
	for _, m := range modules {
		ids, err := licensesOf(m.Dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", m.Path, m.Version, err))
		}
		if list {
			fmt.Printf("%s %s %s\n", m.Path, m.Version, strings.Join(ids, " "))
		}
		for _, id := range ids {
			if !slices.Contains(allowed, id) {
				errs = append(errs, fmt.Errorf("%s %s is under %s, which is not among those allowed: %s", m.Path, m.Version, id, strings.Join(allowed, ", ")))
			}
		}
	}
	if len(errs) == 0 {
		fmt.Printf("%d modules, all under licences that are allowed\n", len(modules))
	}
	return errors.Join(errs...)
}

// licensesOf are the SPDX identifiers of the licence files in a module's root.
func licensesOf(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if e.IsDir() || !licenseFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		if noticed, ok := notices[fmt.Sprintf("%x", sha256.Sum256(text))]; ok {
			ids = append(ids, noticed...)
			continue
		}
		found := licensecheck.Scan(text)
		if found.Percent < covered {
			return nil, fmt.Errorf("%s: only %.0f %% of it is the text of a known licence", e.Name(), found.Percent)
		}
		for _, match := range found.Match {
			if !slices.Contains(ids, match.ID) {
				ids = append(ids, match.ID)
			}
		}
	}
	if len(ids) == 0 {
		return nil, errors.New("no licence file")
	}
	return ids, nil
}
