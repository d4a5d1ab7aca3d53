package postgres

import (
	"cmp"
	"context"
	"slices"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// merge yields the rows of parts by span.
type merge struct {
	reader
	q store.Query
	// todo are the parts that are not opened yet, the one whose rows come first first.
	todo []part
	open []*cursor
}

func (m *merge) run(ctx context.Context, yield func(*store.Report) bool) error {
	slices.SortStableFunc(m.todo, func(a, b part) int { return cmp.Compare(m.begin(&a), m.begin(&b)) })
	var report store.Report
	for {
		if err := m.openDue(ctx); err != nil {
			return err
		}
		c := m.first()
		if c == nil {
			return nil
		}
		if err := c.rows[0].report(c.known, &report); err != nil {
			return err
		}
		if !yield(&report) {
			return errEnough
		}
		if err := c.next(ctx); err != nil {
			return err
		}
		if len(c.rows) == 0 {
			m.open = slices.DeleteFunc(m.open, func(o *cursor) bool { return o == c })
		}
	}
}

// position is where a span is in the order of the query.
func (m *merge) position(span int64) int64 {
	if m.q.Oldest {
		return span
	}
	return -span
}

// begin is the position before which no row of a part is.
func (m *merge) begin(p *part) int64 {
	switch {
	case p.isOpen() && m.q.Oldest:
		return 0
	case p.isOpen():
		return -(1<<31 - 1)
	case m.q.Oldest:
		return p.first - p.first%perHour // a rolled part has spans of hours
	}
	return -p.last
}

// first returns the cursor with the next row; nil: there is none.
func (m *merge) first() (out *cursor) {
	for _, c := range m.open {
		if out == nil || m.position(int64(c.rows[0].span)) < m.position(int64(out.rows[0].span)) {
			out = c
		}
	}
	return out
}

// openDue opens the parts that may have the next row.
func (m *merge) openDue(ctx context.Context) error {
	for len(m.todo) > 0 {
		p := &m.todo[0]
		if c := m.first(); c != nil && m.position(int64(c.rows[0].span)) < m.begin(p) {
			return nil
		}
		m.todo = m.todo[1:]
		query, err := exactQuery(ctx, m.tx, p, m.q)
		if err != nil {
			return err
		}
		c, err := m.reader.open(ctx, p, query)
		if err != nil {
			return err
		}
		if len(c.rows) > 0 {
			m.open = append(m.open, c)
		}
	}
	return nil
}
