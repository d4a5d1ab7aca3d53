// Package fastyaml makes JSON of the YAML that manifests are written in, as sigs.k8s.io/yaml does and many times as fast.
//
// It knows block and flow collections, plain and quoted scalars that fit on a line, and comments. Whatever else a document holds (anchors, tags,
// block scalars, keys that are there twice …), and whatever is no YAML, is left to sigs.k8s.io/yaml: so the answer, or the error, is always that one's.
package fastyaml

import (
	"unicode/utf8"

	"sigs.k8s.io/yaml"
)

// Skip names what is left out of the answer: keys of mappings, and below them keys of theirs; elements of a sequence are
// as the sequence. An empty one stands for a key's whole value.
type Skip map[string]Skip

// ToJSON translates one document. What is skipped need not be there in the answer, and is not always.
func ToJSON(document []byte, skip Skip) ([]byte, error) {
	if out, ok := Try(document, skip); ok {
		return out, nil
	}
	return yaml.YAMLToJSON(document)
}

// Try is false for a document that is better left to another parser. Without tabs JSON is YAML too.
func Try(document []byte, skip Skip) ([]byte, bool) {
	p := parser{in: document, out: make([]byte, 0, min(len(document), 1<<16))}
	ok := plain(document) && p.document(skip)
	return p.out, ok
}

// plain is false for documents with characters that YAML treats in some way of its own.
func plain(document []byte) bool {
	for i := 0; i < len(document); i++ {
		c := document[i]
		if c >= ' ' && c < 0x7f || c == '\n' {
			continue
		}
		if c < utf8.RuneSelf {
			return false
		}
		r, size := utf8.DecodeRune(document[i:])
		// Below U+00A0 are controls and a line break; U+2028 and U+2029 are line breaks too; then byte order marks, and what is
		// not well encoded.
		if r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r >= utf8.RuneError && r <= 0xffff {
			return false
		}
		i += size - 1
	}
	return true
}

// parser reads in at pos and appends to out. Its methods return false where they are not sure.
type parser struct {
	in   []byte
	pos  int
	out  []byte
	keys [][]byte // of the mappings that are being read
}

// most is how many keys of a mapping are compared with each other.
const most = 64

// begin a mapping; what it returns is for key.
func (p *parser) begin() int { return len(p.keys) }

// end a mapping.
func (p *parser) end(first int) { p.keys = p.keys[:first] }

// key is false for one that the mapping has already.
func (p *parser) key(first int, key []byte) bool {
	mine := p.keys[first:]
	if len(mine) == most {
		return false
	}
	for _, other := range mine {
		if string(other) == string(key) {
			return false
		}
	}
	p.keys = append(p.keys, key)
	return true
}

// under is what to skip of the value of a key; all is true for all of it.
func (s Skip) under(key []byte) (below Skip, all bool) {
	below, ok := s[string(key)]
	return below, ok && len(below) == 0
}
