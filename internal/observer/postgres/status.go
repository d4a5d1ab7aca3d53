package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Losses implements store.Store.
func (s *Store) Losses(ctx context.Context, since, until time.Time) ([]observerapi.Loss, error) {
	rows, err := s.pool.Query(ctx, "SELECT node, reason, first, last, packets, records FROM kidoban_losses WHERE first < $1 AND last >= $2",
		until.UnixMilli(), since.UnixMilli())
	if err != nil {
		return nil, err
	}
	losses, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l observerapi.Loss, err error) {
		var first, last, packets, records int64
		err = row.Scan(&l.Node, &l.Reason, &first, &last, &packets, &records)
		l.First, l.Last, l.Packets, l.Records = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC(), uint64(packets), uint64(records)
		return l, err
	})
	return store.MergeLosses(losses), err
}

// Nodes implements store.Store.
func (s *Store) Nodes(ctx context.Context) ([]store.Node, error) {
	rows, err := s.pool.Query(ctx, "SELECT node, min(first), max(last) FROM kidoban_batches GROUP BY node ORDER BY node")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (n store.Node, err error) {
		var first, last int64
		err = row.Scan(&n.Name, &first, &last)
		n.First, n.Last = time.UnixMilli(first).UTC(), time.UnixMilli(last).UTC()
		return n, err
	})
}

// Status implements store.Store.
func (s *Store) Status(ctx context.Context) (store.Status, error) {
	var out store.Status
	total, all, err := s.measure(ctx)
	if err != nil {
		return out, err
	}
	out.Bytes = total
	for i := range all {
		p := &all[i]
		if i == 0 {
			out.Began = time.Unix(p.started, 0).UTC()
		}
		if p.state == stateOpen || p.state == stateClosed {
			if err := s.measureOpen(ctx, p); err != nil {
				return out, err
			}
		}
		if p.first == 0 {
			continue
		}
		first := time.Unix(p.first*int64(store.Exact.Seconds()), 0).UTC()
		if out.Since.IsZero() || first.Before(out.Since) {
			out.Since = first
		}
		if p.state == stateRolled {
			continue
		}
		out.Reports += p.reports
		if out.ExactSince.IsZero() || first.Before(out.ExactSince) {
			out.ExactSince = first
		}
	}
	return out, nil
}

// measureOpen reads what is not noted about a part that is not ready.
func (s *Store) measureOpen(ctx context.Context, p *part) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		var rest int64
		err := tx.QueryRow(ctx, fmt.Sprintf("SELECT coalesce((SELECT min(span) FROM %[1]s), 0), (SELECT count(*) FROM %[1]s WHERE tx >= '%[2]d')",
			table(tableExact, p.id), p.watermark)).Scan(&p.first, &rest)
		p.reports += rest
		return err
	})
}
