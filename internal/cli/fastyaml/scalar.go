package fastyaml

import (
	"bytes"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// reserved are words that are no strings, in any case.
const reserved = " null true false yes no on off y n "

func isReserved(word []byte) bool {
	return len(word) <= 5 && strings.Contains(reserved, " "+strings.ToLower(string(word))+" ")
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isDigit(c byte) bool  { return c >= '0' && c <= '9' }

// plainKey reads a key that is not quoted; pos is behind it.
func (p *parser) plainKey() ([]byte, bool) {
	start := p.pos
	for p.pos < len(p.in) {
		c := p.in[p.pos]
		if !isLetter(c) && c != '_' && (p.pos == start || !isDigit(c) && c != '.' && c != '/' && c != '-') {
			break
		}
		p.pos++
	}
	key := p.in[start:p.pos]
	return key, len(key) > 0 && !isReserved(key)
}

// quotedKey reads a key in quotes that stands for itself.
func (p *parser) quotedKey() ([]byte, bool) {
	quote := p.in[p.pos]
	n := bytes.IndexByte(p.in[p.pos+1:], quote)
	if n < 0 {
		return nil, false
	}
	key := p.in[p.pos+1 : p.pos+1+n]
	p.pos += n + 2
	return key, !bytes.ContainsAny(key, "\\\n\"'") && string(key) != "<<"
}

func (p *parser) appendKey(key []byte) {
	p.out = append(p.out, '"')
	p.out = append(p.out, key...)
	p.out = append(p.out, '"', ':')
}

// appendString in quotes.
func (p *parser) appendString(text []byte) {
	p.out = append(p.out, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			p.out = append(p.out, '\\')
		}
		p.out = append(p.out, c)
	}
	p.out = append(p.out, '"')
}

// quoted reads a scalar in quotes that ends on its line.
func (p *parser) quoted() bool {
	if p.in[p.pos] == '\'' {
		return p.singleQuoted()
	}
	start := p.pos
	for i := start + 1; i < len(p.in); i++ {
		switch p.in[i] {
		case '"':
			p.pos = i + 1
			p.out = append(p.out, p.in[start:p.pos]...)
			return true
		case '\n':
			return false
		case '\\': // those escapes that JSON has too
			i++
			switch {
			case i+4 < len(p.in) && p.in[i] == 'u':
				if n, err := strconv.ParseUint(string(p.in[i+1:i+5]), 16, 16); err != nil || n >= 0xd800 { // half of a character
					return false
				}
			case i == len(p.in) || strings.IndexByte(`"\bfnrt`, p.in[i]) < 0:
				return false
			}
		}
	}
	return false
}

func (p *parser) singleQuoted() bool {
	start := p.pos + 1
	for i := start; i < len(p.in); i++ {
		switch p.in[i] {
		case '\n':
			return false
		case '\'':
			if i+1 < len(p.in) && p.in[i+1] == '\'' {
				i++
				continue
			}
			p.pos = i + 1
			p.appendString(bytes.ReplaceAll(p.in[start:i], []byte("''"), []byte("'")))
			return true
		}
	}
	return false
}

// plainScalar appends what a scalar without quotes means.
func (p *parser) plainScalar(text []byte) bool {
	if len(text) == 0 {
		return false
	}
	switch c := text[0]; {
	case (isLetter(c) || c == '_' || c == '/') && !isReserved(text):
		p.appendString(text)
	case isDigit(c) && isInteger(text):
		p.out = append(p.out, text...)
	case isDigit(c) && (isAddress(text) || isName(text)):
		p.appendString(text)
	case string(text) == "null" || string(text) == "true" || string(text) == "false":
		p.out = append(p.out, text...)
	case isLetter(c) || isDigit(c) || string(text) == "~" || len(text) > 1 && strings.IndexByte("+-.", c) >= 0 && isWord(text[1]):
		// A number of some other form, a time, a boolean, null.
		value, err := yaml.YAMLToJSON(text)
		if err != nil || bytes.HasPrefix(value, []byte("{")) || bytes.HasPrefix(value, []byte("[")) {
			return false
		}
		p.out = append(p.out, bytes.TrimSpace(value)...)
	default:
		return false
	}
	return true
}

// isInteger is true for a number that is written in the same way in JSON.
func isInteger(text []byte) bool {
	if len(text) > 15 || text[0] == '0' && len(text) > 1 {
		return false
	}
	for _, c := range text {
		if !isDigit(c) {
			return false
		}
	}
	return true
}

// isName is true for what begins as a number and has letters that neither numbers have, without a leading 0, nor times.
func isName(text []byte) bool {
	return text[0] != '0' && bytes.ContainsFunc(text, func(r rune) bool { return r >= 'a' && r <= 'y' && r != 'e' && r != 't' })
}

// isAddress is true for an IPv4 address or block, which is no number.
func isAddress(text []byte) bool {
	dots := 0
	for _, c := range text {
		if c == '.' {
			dots++
		} else if !isDigit(c) && c != '/' {
			return false
		}
	}
	return dots > 1
}
