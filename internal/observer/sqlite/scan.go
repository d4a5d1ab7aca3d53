package sqlite

import (
	"container/heap"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// columnsRead are the columns of a row in the order in which rows reads them. %s is the span.
const columnsRead = "SELECT %s, source, destination, packed, decision, service, connections, bytes, first, last FROM "

// rows reads rows of one table of one partition, in the order of their spans.
type rows struct {
	*sql.Rows
	from       *partition
	resolution time.Duration
	isKey      bool // the first column is a key of the table exact

	span, source, destination, packed, decision, service, connections, bytes, first, last int64
}

// next reads the next row; false at the end.
func (r *rows) next() (bool, error) {
	if !r.Next() {
		return false, r.Err()
	}
	err := r.Scan(&r.span, &r.source, &r.destination, &r.packed, &r.decision, &r.service, &r.connections, &r.bytes, &r.first, &r.last)
	if r.isKey {
		r.span = spanOf(r.span)
	}
	return err == nil, err
}

// report sets a report to the row that was read.
func (r *rows) report(ctx context.Context, shared *interner, out *store.Report) (err error) {
	out.Span, out.Resolution = time.Unix(r.span, 0).UTC(), r.resolution
	out.First, out.Last = time.UnixMilli(r.span*1000+r.first).UTC(), time.UnixMilli(r.span*1000+r.last).UTC()
	out.Connections, out.Bytes = uint64(r.connections), uint64(r.bytes)
	protocol := unpack(r.packed, out)
	if out.Source, err = r.from.end(ctx, shared, r.source); err != nil {
		return err
	}
	if out.Destination, err = r.from.end(ctx, shared, r.destination); err != nil {
		return err
	}
	if out.Decision, err = r.from.decision(ctx, shared, r.decision); err != nil {
		return err
	}
	if out.Protocol, err = r.from.word(ctx, protocol); err != nil {
		return err
	}
	out.Service, err = r.from.word(ctx, r.service)
	return err
}

// Scan implements store.Store. It merges the partitions, and opens each when its time comes.
func (s *Store) Scan(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	ctx, cancel := context.WithCancel(ctx) // ends the rows that are still read
	defer cancel()
	todo := s.overlapping(q.Since, q.Until)
	defer s.release(todo)
	m := &merge{oldest: q.Oldest}
	defer m.close()
	if q.Oldest {
		slices.SortFunc(todo, func(a, b view) int { return int(a.first - b.first) })
	} else {
		slices.SortFunc(todo, func(a, b view) int { return int(b.last - a.last) })
	}
	var report store.Report
	for {
		for len(todo) > 0 && (m.Len() == 0 || m.isDue(todo[0])) {
			if err := s.openExact(ctx, m, todo[0], q); err != nil {
				return err
			}
			todo = todo[1:]
		}
		if m.Len() == 0 {
			if len(todo) == 0 {
				return nil
			}
			continue
		}
		r := m.all[0]
		if err := r.report(ctx, &s.shared, &report); err != nil {
			return err
		}
		if !yield(&report) {
			return nil
		}
		more, err := r.next()
		if err != nil {
			return err
		}
		if more {
			heap.Fix(m, 0)
		} else if err := heap.Pop(m).(*rows).Close(); err != nil {
			return err
		}
	}
}

// merge is a heap of rows by their spans.
type merge struct {
	all    []*rows
	oldest bool
}

func (m *merge) Len() int { return len(m.all) }
func (m *merge) Less(i, j int) bool {
	if m.oldest {
		return m.all[i].span < m.all[j].span
	}
	return m.all[i].span > m.all[j].span
}
func (m *merge) Swap(i, j int) { m.all[i], m.all[j] = m.all[j], m.all[i] }
func (m *merge) Push(x any)    { m.all = append(m.all, x.(*rows)) }
func (m *merge) Pop() any {
	last := m.all[len(m.all)-1]
	m.all = m.all[:len(m.all)-1]
	return last
}

// isDue reports whether a partition may have a row that comes before the next of the heap.
func (m *merge) isDue(v view) bool {
	if m.oldest {
		return v.first-v.first%int64(store.Hour.Seconds()) <= m.all[0].span
	}
	return v.last >= m.all[0].span
}

func (m *merge) add(r *rows) error {
	more, err := r.next()
	if err != nil || !more {
		return errors.Join(err, r.Close())
	}
	heap.Push(m, r)
	return nil
}

func (m *merge) close() {
	for _, r := range m.all {
		_ = r.Close() // of rows that are not read any more
	}
}

// openExact adds the rows of a partition that a query asks for: exact ones, or hours where there are no others.
func (s *Store) openExact(ctx context.Context, m *merge, v view, q store.Query) error {
	f, ok, err := v.filter(ctx, q)
	if err != nil || !ok {
		return err
	}
	order := " DESC"
	if q.Oldest {
		order = ""
	}
	if v.rolled {
		return v.add(ctx, m, store.Hour, false, "hours WHERE span >= ? AND span < ?"+f.summaries()+" ORDER BY span"+order,
			round(q.Since, store.Hour), q.Until.Unix())
	}
	since, until := key(round(q.Since, store.Exact), 0), key(roundSeconds(q.Until.Unix()+int64(store.Exact.Seconds())-1, store.Exact), 0)
	in := "exact WHERE k >= ? AND k < ?" + f.decisions()
	if len(f.workloads) == 0 {
		return v.add(ctx, m, store.Exact, true, in+" ORDER BY k"+order, since, until)
	}
	if q.Workload == "" { // most of the rows, perhaps: by time, and not by the indexes
		list := list(f.workloads)
		return v.add(ctx, m, store.Exact, true, in+" AND (+sourceWorkload IN "+list+" OR +destinationWorkload IN "+list+") ORDER BY k"+order, since, until)
	}
	for _, id := range f.workloads {
		if err := v.add(ctx, m, store.Exact, true, fmt.Sprint(in, " AND sourceWorkload = ", id, " ORDER BY k", order), since, until); err != nil {
			return err
		}
		if err := v.add(ctx, m, store.Exact, true,
			fmt.Sprint(in, " AND destinationWorkload = ", id, " AND +sourceWorkload NOT IN ", list(f.workloads), " ORDER BY k", order), since, until); err != nil {
			return err
		}
	}
	return nil
}

func (v view) add(ctx context.Context, m *merge, resolution time.Duration, isKey bool, query string, args ...any) error {
	span := "span"
	if isKey {
		span = "k"
	}
	r, err := v.db.QueryContext(ctx, fmt.Sprintf(columnsRead, span)+query, args...)
	if err != nil {
		return err
	}
	return m.add(&rows{Rows: r, from: v.partition, resolution: resolution, isKey: isKey})
}

// Sums implements store.Store.
func (s *Store) Sums(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	views := s.overlapping(q.Since, q.Until)
	defer s.release(views)
	for _, v := range views {
		more, err := s.sums(ctx, v, q, yield)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

func (s *Store) sums(ctx context.Context, v view, q store.Query, yield func(*store.Report) bool) (more bool, err error) {
	f, ok, err := v.filter(ctx, q)
	if err != nil || !ok {
		return true, err
	}
	if err := v.load(ctx, &s.shared); err != nil {
		return false, err
	}
	// The hours are a fraction of the minutes. They do where all of the partition is asked for.
	resolution := sumSpan
	hours := v.closed && q.Since.Unix() <= v.first && v.last < q.Until.Unix()
	table := "minutes"
	if v.rolled || hours {
		table, resolution = "hours", store.Hour
	}
	since := round(q.Since, resolution)
	result, err := v.db.QueryContext(ctx, fmt.Sprintf(columnsRead, "span")+table+" WHERE span >= ? AND span < ?"+f.summaries()+f.decisions(), since, q.Until.Unix())
	if err != nil {
		return false, err
	}
	r := &rows{Rows: result, from: v.partition, resolution: resolution}
	defer func() { err = errors.Join(err, r.Close()) }()
	var report store.Report
	for {
		if more, err := r.next(); err != nil || !more {
			return err == nil, err
		}
		if err := r.report(ctx, &s.shared, &report); err != nil {
			return false, err
		}
		if !yield(&report) {
			return false, nil
		}
	}
}

// filter is a query in the numbers of a partition.
type filter struct {
	workloads, ends, decided []int64
}

// filter returns a query in the partition's numbers, or false if nothing in it matches.
func (v view) filter(ctx context.Context, q store.Query) (f filter, ok bool, err error) {
	if q.Namespace != "" {
		query, args := "SELECT id FROM workloads WHERE namespace = ?", []any{q.Namespace}
		if q.Workload != "" {
			query, args = query+" AND name = ?", append(args, q.Workload)
		}
		if f.workloads, err = v.numbers(ctx, query, args...); err != nil || len(f.workloads) == 0 {
			return f, false, err
		}
		if f.ends, err = v.numbers(ctx, "SELECT id FROM ends WHERE id = summary AND workload IN "+list(f.workloads)); err != nil {
			return f, false, err
		}
	}
	if q.Policy.Name != "" {
		// Only what the texts contain is looked for: callers filter.
		query, args := "SELECT id FROM decisions WHERE instr(text, ?)", []any{`"name":"` + q.Policy.Name + `"`}
		if f.decided, err = v.numbers(ctx, query, args...); err != nil || len(f.decided) == 0 {
			return f, false, err
		}
	}
	return f, true, nil
}

// summaries is a condition for the tables minutes and hours.
func (f filter) summaries() string {
	if len(f.workloads) == 0 {
		return ""
	}
	ends := list(f.ends)
	return " AND (source IN " + ends + " OR destination IN " + ends + ")"
}

func (f filter) decisions() string {
	if len(f.decided) == 0 {
		return ""
	}
	return " AND +decision IN " + list(f.decided)
}

func (v view) numbers(ctx context.Context, query string, args ...any) (out []int64, err error) {
	rows, err := v.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, rows.Err()
}

func list(ids []int64) string {
	var b strings.Builder
	for i, id := range ids {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, id)
	}
	return "(" + b.String() + ")"
}
