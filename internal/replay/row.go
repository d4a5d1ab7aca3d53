package replay

import (
	"fmt"
	"strconv"
	"time"
)

// row is a record: [flow, first, last, connections]. Times are seconds since 1970, with up to nine digits behind a point; 0 stands for none.
type row struct {
	flow        int
	first, last int64 // nanoseconds
	connections uint64
}

func (r *row) appendTo(line []byte) []byte {
	line = strconv.AppendInt(append(line, '['), int64(r.flow), 10)
	line = appendTime(append(line, ','), r.first)
	line = appendTime(append(line, ','), r.last)
	line = strconv.AppendUint(append(line, ','), r.connections, 10)
	return append(line, ']', '\n')
}

func appendTime(line []byte, nanos int64) []byte {
	line = strconv.AppendInt(line, nanos/int64(time.Second), 10)
	fraction := nanos % int64(time.Second)
	if fraction == 0 {
		return line
	}
	line = append(line, '.')
	for unit := int64(time.Second) / 10; fraction > 0; unit /= 10 {
		line = append(line, byte('0'+fraction/unit))
		fraction %= unit
	}
	return line
}

// nanosOf a time, 0 for one before 1970.
func nanosOf(t time.Time) int64 {
	if t.Unix() < 0 {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// read a line as appendTo writes it, without its end. flows is how many flows are known.
func (r *row) read(line []byte, flows int) error {
	p := parser{rest: line}
	p.skip('[')
	number := p.number(maxNumber)
	p.skip(',')
	r.first = p.time()
	p.skip(',')
	r.last = p.time()
	p.skip(',')
	r.connections = p.number(maxCount)
	p.skip(']')
	switch {
	case p.failed || len(p.rest) > 0:
		return fmt.Errorf("not a record, which is [flow,first,last,connections] without blanks")
	case number >= uint64(flows):
		return fmt.Errorf("flow %d: the lines before it have %d flows", number, flows)
	case r.last == 0:
		return fmt.Errorf("not a record: it has no time")
	}
	r.flow = int(number)
	return nil
}

const (
	maxNumber = 1 << 31
	maxCount  = 1e18
	// maxSeconds fits in an int64 as nanoseconds: it is in the year 2255.
	maxSeconds = 9e9
)

// parser reads numbers from the begin of a text.
type parser struct {
	rest   []byte
	failed bool
}

func (p *parser) skip(c byte) {
	if len(p.rest) == 0 || p.rest[0] != c {
		p.failed = true
		return
	}
	p.rest = p.rest[1:]
}

// number in decimal digits, below a limit of at most 1e18.
func (p *parser) number(limit uint64) (n uint64) {
	i := 0
	for ; i < len(p.rest); i++ {
		digit := p.rest[i] - '0'
		if digit > 9 {
			break
		}
		if n = n*10 + uint64(digit); n >= limit {
			p.failed = true
			return 0
		}
	}
	p.failed = p.failed || i == 0 || i > 1 && p.rest[0] == '0'
	p.rest = p.rest[i:]
	return n
}

func (p *parser) time() int64 {
	n := int64(p.number(maxSeconds)) * int64(time.Second)
	if len(p.rest) == 0 || p.rest[0] != '.' {
		return n
	}
	p.rest = p.rest[1:]
	unit, i := int64(time.Second), 0
	for ; i < len(p.rest) && p.rest[i]-'0' <= 9; i++ {
		unit /= 10
		n += int64(p.rest[i]-'0') * unit
	}
	p.failed = p.failed || i == 0 || i > 9
	p.rest = p.rest[i:]
	return n
}
