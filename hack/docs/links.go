package main

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode"
)

// brokenLinks says which links to files of the repository, and to headings in its pages, lead nowhere. Links to the outside are
// not followed.
func brokenLinks(root string, all []*page) []string {
	byPath := map[string]*page{}
	for _, p := range all {
		byPath[p.path] = p
	}
	var broken []string
	for _, p := range all {
		for _, l := range p.links {
			if why := brokenLink(root, byPath, p, l.destination); why != "" {
				broken = append(broken, fmt.Sprintf("%s:%d: (%s): %s", p.path, l.line, l.destination, why))
			}
		}
	}
	return broken
}

func brokenLink(root string, byPath map[string]*page, from *page, destination string) string {
	u, err := url.Parse(destination)
	if err != nil {
		return err.Error()
	}
	if u.Scheme != "" || u.Host != "" {
		return ""
	}
	target := from.path
	if u.Path != "" {
		target = path.Join(path.Dir(from.path), u.Path)
	}
	if path.IsAbs(u.Path) || strings.HasPrefix(target, "../") {
		return "it leads out of the repository"
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil {
		return "there is no such file"
	}
	if p := byPath[target]; u.Fragment != "" && p != nil && !p.anchors[u.Fragment] {
		return "there is no such heading"
	}
	return ""
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) }
