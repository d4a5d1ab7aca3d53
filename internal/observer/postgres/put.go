package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// errPart says that there is no part that can be pushed to.
var errPart = errors.New("a new part is needed")

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, batches []store.Batch) error {
	if len(batches) == 0 {
		return nil
	}
	// The same order in all replicas: two that push for the same agents then wait for each other only once.
	batches = slices.Clone(batches)
	slices.SortFunc(batches, func(a, b store.Batch) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.Sequence, b.Sequence))
	})
	for {
		p := &push{Store: s, batches: batches}
		err := s.transact(ctx, func(tx pgx.Tx) error { return p.run(ctx, tx) })
		if err == nil {
			s.names.committed(p.part, p.added)
			return nil
		}
		if !errors.Is(err, errPart) {
			return err
		}
		if err := s.newPart(ctx, p.part, batches[0].Received); err != nil {
			return err
		}
	}
}

// push is one transaction that stores batches.
type push struct {
	*Store
	batches []store.Batch

	part    int64 // 0: there is none
	added   map[int64]name
	outside int
	rows    [][]any
}

func (p *push) run(ctx context.Context, tx pgx.Tx) error {
	p.part, p.added, p.rows = 0, map[int64]name{}, nil
	if _, err := tx.Exec(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock_shared(%d)", lockParts)); err != nil {
		return err
	}
	if err := p.choosePart(ctx, tx); err != nil {
		return err
	}
	fresh, err := p.fresh(ctx, tx)
	if err != nil || len(fresh) == 0 {
		return err
	}
	if p.outside, err = p.names.pushing(ctx, tx, p.part); err != nil {
		return err
	}
	for _, b := range fresh {
		for i := range b.Reports {
			if err := p.report(&b.Reports[i]); err != nil {
				return err
			}
		}
	}
	if err := insertNames(ctx, tx, p.part, p.added); err != nil {
		return err
	}
	_, err = tx.CopyFrom(ctx, pgx.Identifier{table(tableExact, p.part)}, columnNames, pgx.CopyFromRows(p.rows))
	if err != nil {
		return err
	}
	return p.losses(ctx, tx, fresh)
}

// choosePart finds the part to push to.
func (p *push) choosePart(ctx context.Context, tx pgx.Tx) error {
	var open part
	err := tx.QueryRow(ctx, "SELECT id, started FROM kidoban_parts WHERE state = $1", stateOpen).Scan(&open.id, &open.started)
	if errors.Is(err, pgx.ErrNoRows) {
		return errPart
	}
	if err != nil {
		return err
	}
	p.part = open.id
	bytes, err := open.size(ctx, tx)
	if err != nil {
		return err
	}
	if bytes >= p.limits.Bytes/parts || p.batches[0].Received.Unix()-open.started >= int64(partTime.Seconds()) {
		return errPart
	}
	return nil
}

// newPart opens a part in place of another, if no other replica has done it.
func (s *Store) newPart(ctx context.Context, old int64, now time.Time) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		if err := lockForParts(ctx, tx); err != nil {
			return err
		}
		all, err := listParts(ctx, tx)
		if err != nil {
			return err
		}
		id := now.Unix()
		for i := range all {
			p := &all[i]
			id = max(id, p.id+1)
			if !p.isOpen() {
				continue
			}
			if p.id != old {
				return nil
			}
			if err := closePart(ctx, tx, p); err != nil {
				return err
			}
		}
		if err := exec(ctx, tx, createPart(id)...); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "INSERT INTO kidoban_parts (id, started, state) VALUES ($1, $2, $3)", id, now.Unix(), stateOpen)
		return err
	})
}

// lockForParts keeps all others from pushing and from changing parts until the transaction ends.
func lockForParts(ctx context.Context, tx pgx.Tx) error {
	_, err := tx.Exec(ctx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockParts))
	return err
}

// closePart ends the pushing to a part. The caller has the lock.
func closePart(ctx context.Context, tx pgx.Tx, p *part) error {
	_, err := tx.Exec(ctx, fmt.Sprintf(`UPDATE kidoban_parts SET state = $2, first = spans.first, last = spans.last
		FROM (SELECT min(span) AS first, max(span) AS last FROM %s) spans WHERE id = $1`, table(tableExact, p.id)), p.id, stateClosed)
	return err
}

// fresh notes the batches as stored, and returns those that were not.
func (p *push) fresh(ctx context.Context, tx pgx.Tx) ([]*store.Batch, error) {
	queue := &pgx.Batch{}
	var fresh []*store.Batch
	for i := range p.batches {
		b := &p.batches[i]
		if b.Sequence >= math.MaxInt64 {
			return nil, fmt.Errorf("batch %d of node %s: the sequence is too large", b.Sequence, b.Node)
		}
		queue.Queue(`INSERT INTO kidoban_batches AS b VALUES ($1, $2, int8multirange(int8range($3::bigint, $3::bigint, '[]')), $4, $4)
			ON CONFLICT (node, generation) DO UPDATE SET sequences = b.sequences + excluded.sequences,
				first = least(b.first, excluded.first), last = greatest(b.last, excluded.last)
			WHERE NOT b.sequences @> excluded.sequences`, storable(b.Node), storable(b.Generation), int64(b.Sequence), b.Received.UnixMilli())
	}
	results := tx.SendBatch(ctx, queue)
	for i := range p.batches {
		tag, err := results.Exec()
		if err != nil {
			return nil, errors.Join(err, results.Close())
		}
		if tag.RowsAffected() == 1 {
			fresh = append(fresh, &p.batches[i])
		}
	}
	return fresh, results.Close()
}

// columnNames are those of columns.
var columnNames = []string{
	"span", "source", "destination", "decision", "service", "protocol", "port", "flags", "connections", "bytes", "first", "last",
}

// report adds a report to the rows.
func (p *push) report(r *store.Report) error {
	source, err := p.end(r.Source)
	if err != nil {
		return err
	}
	destination, err := p.end(r.Destination)
	if err != nil {
		return err
	}
	decision, err := p.names.decision(r.Decision)
	if err != nil {
		return err
	}
	service := word(r.Service)
	p.add(decision)
	p.add(service)
	span := spanOf(r.First)
	since := func(t time.Time) int32 {
		return int32(min(t.UnixMilli()-span*store.Exact.Milliseconds(), math.MaxInt32))
	}
	p.rows = append(p.rows, []any{
		int32(span), source, destination, decision.id, service.id, storable(r.Protocol), int32(r.Port), flags(r), count(r.Connections), count(r.Bytes),
		since(r.First), since(r.Last),
	})
	return nil
}

// end adds an end, and returns its number. An address outside the cluster is left out if there are too many.
func (p *push) end(e *observerapi.End) (int64, error) {
	rows, err := p.names.end(e)
	if err != nil {
		return 0, err
	}
	if outside := rows[0]; outside.kind == kindOutside && !p.has(outside.id) {
		if p.outside < p.limits.Addresses {
			p.outside++
		} else if rows, err = withoutAddress(e); err != nil {
			return 0, err
		}
	}
	for _, n := range rows {
		p.add(n)
	}
	return rows[0].id, nil
}

// has reports whether the part contains a name, or will.
func (p *push) has(id int64) bool {
	_, isAdded := p.added[id]
	return isAdded || p.names.has(p.part, id)
}

func (p *push) add(n name) {
	if n.id != 0 && !p.has(n.id) {
		p.added[n.id] = n
	}
}

// losses adds up losses by node, reason and minute, in the same order in all replicas.
func (p *push) losses(ctx context.Context, tx pgx.Tx, batches []*store.Batch) error {
	type key struct {
		node, reason string
		minute       int64
	}
	sums := map[key]observerapi.Loss{}
	for _, b := range batches {
		for _, l := range b.Losses {
			k := key{storable(b.Node), storable(l.Reason), l.First.Unix() / int64(store.Minute.Seconds())}
			sum, ok := sums[k]
			if !ok {
				sum.First, sum.Last = l.First, l.Last
			}
			if l.First.Before(sum.First) {
				sum.First = l.First
			}
			if l.Last.After(sum.Last) {
				sum.Last = l.Last
			}
			sum.Packets, sum.Records = sum.Packets+l.Packets, sum.Records+l.Records
			sums[k] = sum
		}
	}
	keys := make([]key, 0, len(sums))
	for k := range sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.reason, b.reason), cmp.Compare(a.minute, b.minute))
	})
	for _, k := range keys {
		l := sums[k]
		_, err := tx.Exec(ctx, `INSERT INTO kidoban_losses AS l VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (node, reason, minute) DO UPDATE SET first = least(l.first, excluded.first), last = greatest(l.last, excluded.last),
				packets = least(l.packets::numeric + excluded.packets, 9223372036854775807)::bigint,
				records = least(l.records::numeric + excluded.records, 9223372036854775807)::bigint`,
			k.node, k.reason, k.minute, l.First.UnixMilli(), l.Last.UnixMilli(), count(l.Packets), count(l.Records))
		if err != nil {
			return err
		}
	}
	return nil
}

// spanOf returns the number of the span of a time.
func spanOf(t time.Time) int64 { return t.Unix() / int64(store.Exact.Seconds()) }

// count is a number that PostgreSQL's bigint can have.
func count(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// Bits of the column flags.
const (
	flagIngress = 1 << iota
	flagReply
	flagBeside
	flagContinues
)

func flags(r *store.Report) int16 {
	var out int16
	for _, f := range []struct {
		set bool
		bit int16
	}{{r.Direction == store.Ingress, flagIngress}, {r.Reply, flagReply}, {r.Beside, flagBeside}, {r.Continues, flagContinues}} {
		if f.set {
			out |= f.bit
		}
	}
	return out
}
