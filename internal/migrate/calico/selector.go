package calico

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Op is what a node of a selector says.
type Op uint8

// The ops.
const (
	OpAll    Op = iota // everything
	OpGlobal           // what is in no namespace
	OpHas              // Key is there
	OpIn               // Key is there and one of Values
	OpNotIn            // Key is not there, or none of Values
	OpPrefix           // Key's value begins with Values[0]
	OpSuffix           // … ends with it
	OpInfix            // … contains it
	OpNot              // Of[0] does not hold
	OpAnd              // all Of hold
	OpOr               // one of Of holds
)

// Selector is a node of a selector.
type Selector struct {
	Op     Op
	Key    string
	Values []string // sorted, each once
	Of     []*Selector
}

// maxDepth of parentheses, so that no selector overflows the stack.
const maxDepth = 100

// ParseSelector reads a selector; an empty one selects everything.
func ParseSelector(text string) (*Selector, error) {
	tokens, err := tokenize(text)
	if err != nil {
		return nil, fmt.Errorf("selector %q: %w", text, err)
	}
	p := &parser{tokens: tokens}
	if p.peek().kind == end {
		return &Selector{Op: OpAll}, nil
	}
	s, err := p.or()
	if err == nil && p.peek().kind != end {
		err = fmt.Errorf("unexpected %q", p.peek().text)
	}
	if err != nil {
		return nil, fmt.Errorf("selector %q: %w", text, err)
	}
	return s, nil
}

type parser struct {
	tokens []token
	depth  int
}

func (p *parser) peek() token { return p.tokens[0] }

func (p *parser) take() token {
	t := p.tokens[0]
	if t.kind != end {
		p.tokens = p.tokens[1:]
	}
	return t
}

func (p *parser) takeSymbol(s string) bool {
	if t := p.peek(); t.kind != symbol || t.text != s {
		return false
	}
	p.take()
	return true
}

func (p *parser) or() (*Selector, error)  { return p.list("||", OpOr, p.and) }
func (p *parser) and() (*Selector, error) { return p.list("&&", OpAnd, p.operation) }

func (p *parser) list(separator string, op Op, item func() (*Selector, error)) (*Selector, error) {
	var of []*Selector
	for {
		s, err := item()
		if err != nil {
			return nil, err
		}
		of = append(of, s)
		if !p.takeSymbol(separator) {
			break
		}
	}
	if len(of) == 1 {
		return of[0], nil
	}
	return &Selector{Op: op, Of: of}, nil
}

func (p *parser) operation() (*Selector, error) {
	not := false
	for p.takeSymbol("!") {
		not = !not
	}
	s, err := p.term()
	if err == nil && not {
		s = &Selector{Op: OpNot, Of: []*Selector{s}}
	}
	return s, err
}

func (p *parser) term() (*Selector, error) {
	switch t := p.take(); {
	case t.kind == predicate:
		return &Selector{Op: OpHas, Key: t.text}, nil
	case t.kind == constant && t.text == "all":
		return &Selector{Op: OpAll}, nil
	case t.kind == constant:
		return &Selector{Op: OpGlobal}, nil
	case t.kind == label:
		return p.comparison(t.text)
	case t == token{symbol, "("}:
		if p.depth++; p.depth > maxDepth {
			return nil, errors.New("too many parentheses")
		}
		defer func() { p.depth-- }()
		s, err := p.or()
		if err == nil && !p.takeSymbol(")") {
			err = errors.New("( without )")
		}
		return s, err
	case t.kind == end:
		return nil, errors.New("unexpected end")
	default:
		return nil, fmt.Errorf("unexpected %q", t.text)
	}
}

var comparisons = map[string]Op{"==": OpIn, "!=": OpNotIn, "in": OpIn, "not in": OpNotIn, "starts with": OpPrefix, "ends with": OpSuffix, "contains": OpInfix}

func (p *parser) comparison(key string) (*Selector, error) {
	o := p.take()
	if o.kind != operator {
		return nil, fmt.Errorf("label %s without an operator", key)
	}
	s := &Selector{Op: comparisons[o.text], Key: key}
	if o.text != "in" && o.text != "not in" {
		v := p.take()
		if v.kind != literal {
			return nil, fmt.Errorf("%s %s without a string", key, o.text)
		}
		s.Values = []string{v.text}
		return s, nil
	}
	if !p.takeSymbol("{") {
		return nil, fmt.Errorf("%s %s without {", key, o.text)
	}
	for p.peek().kind == literal {
		s.Values = append(s.Values, p.take().text)
		if !p.takeSymbol(",") {
			break
		}
	}
	if !p.takeSymbol("}") {
		return nil, fmt.Errorf("%s %s: { without }", key, o.text)
	}
	slices.Sort(s.Values)
	s.Values = slices.Compact(s.Values)
	return s, nil
}

// Matches reports whether the selector selects what has these labels.
func (s *Selector) Matches(get func(key string) (string, bool)) bool {
	value, ok := "", false
	if s.Key != "" {
		value, ok = get(s.Key)
	}
	switch s.Op {
	case OpAll:
		return true
	case OpGlobal:
		_, namespaced := get(labelNamespace)
		return !namespaced
	case OpHas:
		return ok
	case OpIn:
		return ok && slices.Contains(s.Values, value)
	case OpNotIn:
		return !ok || !slices.Contains(s.Values, value)
	case OpPrefix:
		return ok && strings.HasPrefix(value, s.Values[0])
	case OpSuffix:
		return ok && strings.HasSuffix(value, s.Values[0])
	case OpInfix:
		return ok && strings.Contains(value, s.Values[0])
	case OpNot:
		return !s.Of[0].Matches(get)
	case OpAnd:
		return !slices.ContainsFunc(s.Of, func(o *Selector) bool { return !o.Matches(get) })
	default:
		return slices.ContainsFunc(s.Of, func(o *Selector) bool { return o.Matches(get) })
	}
}

// String writes the selector so that it parses to the same.
func (s *Selector) String() string {
	switch s.Op {
	case OpAll:
		return "all()"
	case OpGlobal:
		return "global()"
	case OpHas:
		return "has(" + s.Key + ")"
	case OpIn, OpNotIn:
		var quoted []string
		for _, v := range s.Values {
			quoted = append(quoted, quote(v))
		}
		return s.Key + map[Op]string{OpIn: " in {", OpNotIn: " not in {"}[s.Op] + strings.Join(quoted, ", ") + "}"
	case OpPrefix, OpSuffix, OpInfix:
		return s.Key + map[Op]string{OpPrefix: " starts with ", OpSuffix: " ends with ", OpInfix: " contains "}[s.Op] + quote(s.Values[0])
	case OpNot:
		return "!(" + s.Of[0].String() + ")"
	case OpAnd, OpOr:
	}
	var parts []string
	for _, o := range s.Of {
		parts = append(parts, "("+o.String()+")")
	}
	return strings.Join(parts, map[Op]string{OpAnd: " && ", OpOr: " || "}[s.Op])
}

// quote in the kind of quotes that the value does not have; a literal cannot have both.
func quote(v string) string {
	if strings.Contains(v, `"`) {
		return "'" + v + "'"
	}
	return `"` + v + `"`
}
