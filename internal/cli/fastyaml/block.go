package fastyaml

import "bytes"

// document reads the whole.
func (p *parser) document(skip Skip) bool {
	indent, ok := p.line()
	if !ok || indent != 0 {
		return false
	}
	if p.at('{') || p.at('[') {
		if !p.flow(skip) || !p.rest() {
			return false
		}
	} else if !p.node(0, skip) {
		return false
	}
	_, more := p.line()
	return !more
}

// line moves on to the next line that says something, and to its first character there. pos is at the beginning of a line.
func (p *parser) line() (indent int, ok bool) {
	for p.pos < len(p.in) {
		start := p.pos
		for p.at(' ') {
			p.pos++
		}
		switch {
		case p.pos == len(p.in):
			return 0, false
		case p.in[p.pos] == '\n':
			p.pos++
		case p.in[p.pos] == '#':
			p.endOfLine()
		default:
			return p.pos - start, true
		}
	}
	return 0, false
}

// peek is line, without moving.
func (p *parser) peek() (indent int, first byte, ok bool) {
	back := p.pos
	if indent, ok = p.line(); ok {
		first = p.in[p.pos]
		if first == '-' && !p.dash() {
			first = 0
		}
	}
	p.pos = back
	return indent, first, ok
}

func (p *parser) endOfLine() {
	if n := bytes.IndexByte(p.in[p.pos:], '\n'); n >= 0 {
		p.pos += n + 1
	} else {
		p.pos = len(p.in)
	}
}

// rest is true where nothing but a comment is left of a line, which it moves past.
func (p *parser) rest() bool {
	start := p.pos
	for p.at(' ') {
		p.pos++
	}
	if p.pos < len(p.in) && p.in[p.pos] != '\n' && (p.in[p.pos] != '#' || p.pos == start) {
		return false
	}
	p.endOfLine()
	return true
}

// dash is true at the dash of a sequence's element.
func (p *parser) dash() bool {
	return p.at('-') && (p.pos+1 == len(p.in) || p.in[p.pos+1] == ' ' || p.in[p.pos+1] == '\n')
}

// node reads a block collection; pos is at its first character, in that column.
func (p *parser) node(column int, skip Skip) bool {
	if p.dash() {
		return p.sequence(column, skip)
	}
	return p.mapping(column, skip)
}

func (p *parser) sequence(column int, skip Skip) bool {
	p.out = append(p.out, '[')
	for n := 0; ; n++ {
		if n > 0 {
			p.out = append(p.out, ',')
		}
		start := p.pos
		p.pos++
		for p.at(' ') {
			p.pos++
		}
		if !p.element(column, column+p.pos-start, skip) {
			return false
		}
		indent, first, ok := p.peek()
		if !ok || indent < column || indent == column && first != '-' {
			p.out = append(p.out, ']')
			return true
		}
		if indent > column {
			return false
		}
		p.line()
	}
}

// element of a sequence whose dash is in a column, and what follows it in another.
func (p *parser) element(dash, column int, skip Skip) bool {
	if p.pos == len(p.in) || p.at('\n') || p.at('#') {
		return p.below(dash, false, skip)
	}
	if p.dash() {
		return p.sequence(column, skip)
	}
	back := p.pos
	if _, ok := p.blockKey(); ok {
		p.pos = back
		return p.mapping(column, skip)
	}
	p.pos = back
	return p.inline(dash, skip)
}

// blockKey reads a key with its colon.
func (p *parser) blockKey() (key []byte, ok bool) {
	if p.at('"') || p.at('\'') {
		key, ok = p.quotedKey()
	} else {
		key, ok = p.plainKey()
	}
	if !ok || !p.at(':') {
		return nil, false
	}
	p.pos++
	return key, p.pos == len(p.in) || p.at(' ') || p.at('\n')
}

func (p *parser) mapping(column int, skip Skip) bool {
	p.out = append(p.out, '{')
	first := p.begin()
	for start := len(p.out); ; {
		back := len(p.out)
		key, ok := p.blockKey()
		if !ok || !p.key(first, key) {
			return false
		}
		if back > start {
			p.out = append(p.out, ',')
		}
		p.appendKey(key)
		below, all := skip.under(key)
		if !p.value(column, below, all) {
			return false
		}
		if all {
			p.out = p.out[:back]
		}
		indent, dash, ok := p.peek()
		if !ok || indent < column {
			break
		}
		if indent > column || dash == '-' {
			return false
		}
		p.line()
	}
	p.end(first)
	p.out = append(p.out, '}')
	return true
}

// value of a key in a column; pos is behind the colon.
func (p *parser) value(column int, skip Skip, all bool) bool {
	for p.at(' ') {
		p.pos++
	}
	if p.pos < len(p.in) && !p.at('\n') && !p.at('#') {
		return p.inline(column, skip)
	}
	if all {
		return p.rest() && p.pass(column)
	}
	return p.below(column, true, skip)
}

// below reads the value on the lines that follow, if there is one. A sequence may be in its key's own column.
func (p *parser) below(column int, key bool, skip Skip) bool {
	p.endOfLine()
	indent, first, ok := p.peek()
	if !ok || indent < column || indent == column && (first != '-' || !key) {
		p.out = append(p.out, "null"...)
		return true
	}
	p.line()
	if first == '{' || first == '[' {
		return p.flow(skip) && p.rest()
	}
	return p.node(indent, skip)
}

// inline reads a value on the line of its key or dash, which is in a column.
func (p *parser) inline(column int, skip Skip) bool {
	switch p.in[p.pos] {
	case '{', '[':
		if !p.flow(skip) || !p.rest() {
			return false
		}
	case '"', '\'':
		if !p.quoted() || !p.rest() {
			return false
		}
	default:
		text := p.in[p.pos:]
		if n := bytes.IndexByte(text, '\n'); n >= 0 {
			text = text[:n]
		}
		if n := bytes.Index(text, []byte(" #")); n >= 0 {
			text = text[:n]
		}
		text = bytes.TrimRight(text, " ")
		if bytes.Contains(text, []byte(": ")) || bytes.HasSuffix(text, []byte(":")) || !p.plainScalar(text) {
			return false
		}
		p.endOfLine()
	}
	indent, _, ok := p.peek() // the text may go on
	return !ok || indent <= column
}

// pass moves past the value on the lines below a key in a column, if those are lines of which each can be told from the next.
func (p *parser) pass(column int) bool {
	for {
		indent, first, ok := p.peek()
		if !ok || indent < column || indent == column && first != '-' {
			return true
		}
		p.line()
		parent := indent // of the text, if the line begins one
		for p.dash() {
			parent = indent
			for p.pos++; p.at(' '); p.pos++ {
				indent++
			}
			indent++
		}
		text := p.in[p.pos:]
		if n := bytes.IndexByte(text, '\n'); n >= 0 {
			text = text[:n]
		}
		p.endOfLine()
		text = bytes.TrimRight(text, " ")
		if n := bytes.Index(text, []byte(": ")); n >= 0 && !isQuote(text[0]) {
			text, parent = bytes.TrimLeft(text[n+2:], " "), indent
		}
		if len(text) == 0 {
			continue
		}
		switch last := text[len(text)-1]; text[0] {
		case '"', '\'':
			if len(text) < 2 || last != text[0] && last != ':' {
				return false
			}
		case '{':
			if last != '}' {
				return false
			}
		case '[':
			if last != ']' {
				return false
			}
		case '|', '>':
			for { // what is further in is text
				inner, _, ok := p.peek()
				if !ok || inner <= parent {
					break
				}
				p.line()
				p.endOfLine()
			}
		}
	}
}

func isQuote(c byte) bool { return c == '"' || c == '\'' }
