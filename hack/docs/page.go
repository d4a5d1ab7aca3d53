package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// A page is what is tested of a Markdown file.
type page struct {
	path    string          // from the repository's root, with slashes
	anchors map[string]bool // what a link's fragment may be
	links   []link
	blocks  []block
	section string // heading of the section that is being read
}

type link struct {
	line        int // of the paragraph that has it
	destination string
}

// pages are all of the repository's, in the order of their paths.
func pages(root string) ([]*page, error) {
	var out []*page
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == ".git" || rel == "bin" || rel == "dist" || d.Name() == "node_modules"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		p, err := parse(filepath.ToSlash(rel), source)
		out = append(out, p)
		return err
	})
	return out, err
}

func parse(path string, source []byte) (*page, error) {
	p := &page{path: path, anchors: map[string]bool{}}
	document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	err := ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n := n.(type) {
		case *ast.Heading:
			p.section = plain(n, source)
			p.addAnchor(anchor(p.section))
		case *ast.Link:
			p.links = append(p.links, link{line(n, source), string(n.Destination)})
		case *ast.Image:
			p.links = append(p.links, link{line(n, source), string(n.Destination)})
		case *ast.FencedCodeBlock:
			return ast.WalkSkipChildren, p.addBlock(n, source)
		}
		return ast.WalkContinue, nil
	})
	return p, err
}

// addAnchor adds a heading's anchor; GitHub numbers those that are there already.
func (p *page) addAnchor(name string) {
	unique := name
	for i := 1; p.anchors[unique]; i++ {
		unique = name + "-" + strconv.Itoa(i)
	}
	p.anchors[unique] = true
}

func (p *page) addBlock(n *ast.FencedCodeBlock, source []byte) error {
	if n.Info == nil {
		return nil
	}
	info := strings.Fields(string(n.Info.Value(source)))
	if len(info) == 0 || info[0] != "sh" && info[0] != "text" {
		return nil
	}
	content := string(n.Lines().Value(source))
	if info[0] == "text" {
		if len(info) < 2 {
			return nil
		}
		previous, _ := n.PreviousSibling().(*ast.FencedCodeBlock)
		if info[1] != "output" || len(p.blocks) == 0 || previous == nil || p.blocks[len(p.blocks)-1].line != line(previous, source) {
			return fmt.Errorf("%s:%d: text %s follows no block that is run", p.path, line(n, source), info[1])
		}
		p.blocks[len(p.blocks)-1].output = &content
		return nil
	}
	b := block{page: p.path, section: p.section, line: line(n, source), script: content}
	for _, word := range info[1:] {
		status, isExit := strings.CutPrefix(word, "exit=")
		until, isUntil := strings.CutPrefix(word, "until=")
		switch {
		case slices.Contains(kinds, word):
			b.kind = word
		case isUntil && until != "":
			b.until = until
		case isExit:
			var err error
			if b.status, err = strconv.Atoi(status); err != nil {
				return fmt.Errorf("%s:%d: %w", p.path, b.line, err)
			}
		default:
			return fmt.Errorf("%s:%d: %q is none of %s, exit=N and until=TEXT", p.path, b.line, word, strings.Join(kinds, ", "))
		}
	}
	if b.kind != "" {
		p.blocks = append(p.blocks, b)
	}
	return nil
}

// anchor is what GitHub makes of a heading's text.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || isWord(r):
			return r
		}
		return -1
	}, strings.ToLower(heading))
}

// plain is a node's text without its markup.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		switch c := c.(type) {
		case *ast.Text:
			b.Write(c.Segment.Value(source))
		case *ast.String:
			b.Write(c.Value)
		default:
			b.WriteString(plain(c, source))
		}
	}
	return b.String()
}

// line is the number of the first line of the block that a node is in; 0 if it has none.
func line(n ast.Node, source []byte) int {
	for ; n != nil; n = n.Parent() {
		if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
			return 1 + strings.Count(string(source[:n.Lines().At(0).Start]), "\n")
		}
	}
	return 0
}
