package fastyaml

// space moves on to what is not space; in a flow collection that is on any line.
func (p *parser) space() {
	for p.pos < len(p.in) && (p.in[p.pos] == ' ' || p.in[p.pos] == '\n') {
		p.pos++
	}
}

// at reports whether the next character is c.
func (p *parser) at(c byte) bool { return p.pos < len(p.in) && p.in[p.pos] == c }

// flow reads a collection in brackets.
func (p *parser) flow(skip Skip) bool {
	if p.at('[') {
		return p.flowSequence(skip)
	}
	return p.flowMapping(skip)
}

func (p *parser) flowSequence(skip Skip) bool {
	p.pos++
	p.out = append(p.out, '[')
	for p.space(); !p.at(']'); p.space() {
		if !p.flowValue(skip) {
			return false
		}
		p.space()
		if p.at(']') {
			break
		}
		if !p.at(',') {
			return false
		}
		p.pos++
		if p.space(); p.at(']') {
			return false
		}
		p.out = append(p.out, ',')
	}
	p.pos++
	p.out = append(p.out, ']')
	return true
}

func (p *parser) flowMapping(skip Skip) bool {
	p.pos++
	p.out = append(p.out, '{')
	first := p.begin()
	start := len(p.out)
	for p.space(); !p.at('}'); p.space() {
		back := len(p.out)
		key, below, all, ok := p.flowKey(first, skip)
		if !ok {
			return false
		}
		if back > start {
			p.out = append(p.out, ',')
		}
		p.appendKey(key)
		if !p.flowValue(below) {
			return false
		}
		if all {
			p.out = p.out[:back]
		}
		p.space()
		if p.at('}') {
			break
		}
		if !p.at(',') {
			return false
		}
		p.pos++
		if p.space(); p.at('}') {
			return false
		}
	}
	p.pos++
	p.end(first)
	p.out = append(p.out, '}')
	return true
}

// flowKey reads a key and its colon.
func (p *parser) flowKey(first int, skip Skip) (key []byte, below Skip, all, ok bool) {
	if p.pos == len(p.in) {
		return nil, nil, false, false
	}
	quoted := p.at('"') || p.at('\'')
	if quoted {
		key, ok = p.quotedKey()
	} else {
		key, ok = p.plainKey()
	}
	if !ok || !p.at(':') || !p.key(first, key) {
		return nil, nil, false, false
	}
	p.pos++
	if !p.at(' ') && !p.at('\n') && !quoted {
		return nil, nil, false, false
	}
	p.space()
	below, all = skip.under(key)
	return key, below, all, true
}

func (p *parser) flowValue(skip Skip) bool {
	if p.pos == len(p.in) {
		return false
	}
	switch p.in[p.pos] {
	case '{', '[':
		return p.flow(skip)
	case '"', '\'':
		return p.quoted()
	}
	start, end := p.pos, p.pos
	for ; p.pos < len(p.in); p.pos++ {
		switch c := p.in[p.pos]; c {
		case ',', ']', '}', '\n':
			return p.plainScalar(p.in[start:end])
		case ':', '#', '[', '{', '"', '\'', '?', '&', '*', '!', '|', '>', '%', '@', '`':
			if c != ':' || p.pos+1 == len(p.in) || !isWord(p.in[p.pos+1]) {
				return false
			}
			end = p.pos + 1
		case ' ':
		default:
			end = p.pos + 1
		}
	}
	return false
}

func isWord(c byte) bool { return isLetter(c) || isDigit(c) || c == '/' }
