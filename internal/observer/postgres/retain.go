package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// maxRanges bounds what is kept of the sequences of one generation of an agent. Gaps between them count as stored if there are more.
const maxRanges = 256

// lockTimeout is how long a change of parts waits for readers: those that come meanwhile wait behind it.
const lockTimeout = "SET LOCAL lock_timeout = '3s'"

// Retain implements store.Store. It does nothing while another replica does it.
func (s *Store) Retain(ctx context.Context, now time.Time) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	var alone bool
	if err := conn.QueryRow(ctx, fmt.Sprintf("SELECT pg_try_advisory_lock(%d)", lockRetain)).Scan(&alone); err != nil || !alone {
		return err
	}
	defer s.unlock(ctx, conn)
	if err := s.sumUp(ctx, now); err != nil {
		return err
	}
	if err := s.age(ctx, now); err != nil {
		return err
	}
	if err := s.shrink(ctx); err != nil {
		return err
	}
	return s.forget(ctx, now)
}

// unlock ends the retention of this replica. A connection that cannot do that is closed, which ends it, too.
func (s *Store) unlock(ctx context.Context, conn *pgxpool.Conn) {
	if _, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("SELECT pg_advisory_unlock(%d)", lockRetain)); err != nil {
		_ = conn.Conn().Close(context.WithoutCancel(ctx))
	}
}

// parts returns all parts, by number.
func (s *Store) parts(ctx context.Context) (out []part, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		out, err = listParts(ctx, tx)
		return err
	})
	return out, err
}

// sumUp sums up what was appended to parts since it was called last, and makes closed parts ready.
func (s *Store) sumUp(ctx context.Context, now time.Time) error {
	all, err := s.parts(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		p := &all[i]
		if p.isOpen() && now.Unix()-p.started >= int64(partTime.Seconds()) {
			if err := s.transact(ctx, func(tx pgx.Tx) error {
				if err := lockForParts(ctx, tx); err != nil {
					return err
				}
				return closePart(ctx, tx, p)
			}); err != nil {
				return err
			}
			p.state = stateClosed
		}
		if p.state != stateOpen && p.state != stateClosed {
			continue
		}
		if err := s.transact(ctx, func(tx pgx.Tx) error { return sumUpPart(ctx, tx, p) }); err != nil {
			return err
		}
	}
	return nil
}

// sumUpPart sums up the rows of transactions that have ended. Nothing is pushed to a closed part, so that these are all.
func sumUpPart(ctx context.Context, tx pgx.Tx, p *part) error {
	var until int64
	if err := tx.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").Scan(&until); err != nil {
		return err
	}
	rows := fmt.Sprintf("e.tx >= '%d' AND e.tx < '%d'", p.watermark, until)
	state := p.state
	if state == stateClosed {
		rows, state = fmt.Sprintf("e.tx >= '%d'", p.watermark), stateReady
		exact := table(tableExact, p.id)
		if err := exec(ctx, tx, lockTimeout, "CREATE INDEX ON "+exact+" (source)", "CREATE INDEX ON "+exact+" (destination)"); err != nil {
			return err
		}
	}
	if err := exec(ctx, tx, fmt.Sprintf("INSERT INTO %s (%s) %s", table(tableSums, p.id), columns, summed(p.id, rows))); err != nil {
		return err
	}
	// So that readers' queries use indexes.
	if err := exec(ctx, tx, "ANALYZE "+table(tableExact, p.id), "ANALYZE "+table(tableNames, p.id)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, fmt.Sprintf("UPDATE kidoban_parts SET state = $2, watermark = $3::text::xid8, reports = reports + (SELECT count(*) FROM %s e WHERE %s) WHERE id = $1",
		table(tableExact, p.id), rows), p.id, state, fmt.Sprint(until))
	return err
}

// age rolls up and drops what is too old.
func (s *Store) age(ctx context.Context, now time.Time) error {
	all, err := s.parts(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		p := &all[i]
		old := now.Sub(time.Unix(p.newest(), 0))
		switch {
		case p.isOpen():
		case old > s.limits.Age:
			err = s.drop(ctx, p)
		case old > s.limits.ExactAge && p.state == stateReady:
			err = s.rollUp(ctx, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shrink rolls up and drops the oldest until there is room for a part.
func (s *Store) shrink(ctx context.Context) error {
	for {
		total, all, err := s.measure(ctx)
		if err != nil || total <= s.limits.Bytes-s.limits.Bytes/parts {
			return err
		}
		var oldest, exact *part
		for i := range all {
			p := &all[i]
			if p.isOpen() || p.state == stateClosed {
				continue
			}
			if oldest == nil {
				oldest = p
			}
			if exact == nil && p.state == stateReady {
				exact = p
			}
		}
		switch {
		case exact != nil:
			err = s.rollUp(ctx, exact)
			if err != nil && ctx.Err() == nil {
				// The disk may be full: then there is no room for the sums.
				s.log.Error(err, "Cannot roll up a part of the store; dropping the oldest", "part", exact.id)
				err = s.drop(ctx, oldest)
			}
		case oldest != nil:
			err = s.drop(ctx, oldest)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// measure returns the bytes of all tables, and the parts.
func (s *Store) measure(ctx context.Context) (total int64, all []part, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if all, err = listParts(ctx, tx); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, "SELECT (pg_total_relation_size('kidoban_batches') + pg_total_relation_size('kidoban_losses'))::bigint").Scan(&total)
		for i := range all {
			if err != nil {
				return err
			}
			var n int64
			n, err = all[i].size(ctx, tx)
			total += n
		}
		return err
	})
	return total, all, err
}

// rollUp keeps of a part the sums of hours, and the names that they need. Readers use the former tables until they end.
func (s *Store) rollUp(ctx context.Context, p *part) error {
	exact, sums, names := table(tableExact, p.id), table(tableSums, p.id), table(tableNames, p.id)
	return s.transact(ctx, func(tx pgx.Tx) error {
		return exec(ctx, tx, lockTimeout,
			"CREATE TABLE "+sums+"_rolled (LIKE "+sums+" INCLUDING ALL)",
			"INSERT INTO "+sums+"_rolled ("+columns+") "+hourly(p.id),
			"CREATE TABLE "+names+"_rolled (LIKE "+names+" INCLUDING ALL)",
			"INSERT INTO "+names+"_rolled SELECT * FROM "+names+" WHERE summary = id OR kind NOT IN ('"+kindEnd+"', '"+kindOutside+"')",
			"DROP TABLE "+exact+", "+sums+", "+names,
			"ALTER TABLE "+sums+"_rolled RENAME TO "+sums,
			"ALTER TABLE "+names+"_rolled RENAME TO "+names,
			fmt.Sprintf("UPDATE kidoban_parts SET state = '%s' WHERE id = %d", stateRolled, p.id),
		)
	})
}

func (s *Store) drop(ctx context.Context, p *part) error {
	tables := []string{table(tableSums, p.id), table(tableNames, p.id)}
	if p.state != stateRolled {
		tables = append(tables, table(tableExact, p.id))
	}
	return s.transact(ctx, func(tx pgx.Tx) error {
		return exec(ctx, tx, lockTimeout, "DROP TABLE "+strings.Join(tables, ", "),
			fmt.Sprintf("DELETE FROM kidoban_parts WHERE id = %d", p.id))
	})
}

// forget deletes what is older than all parts may be of what has no part, and bounds the ranges of sequences.
func (s *Store) forget(ctx context.Context, now time.Time) error {
	oldest := now.Add(-s.limits.Age).UnixMilli()
	return s.transact(ctx, func(tx pgx.Tx) error {
		_, batches := tx.Exec(ctx, "DELETE FROM kidoban_batches WHERE last < $1", oldest)
		if batches != nil {
			return batches
		}
		_, losses := tx.Exec(ctx, "DELETE FROM kidoban_losses WHERE last < $1", oldest)
		if losses != nil {
			return losses
		}
		_, err := tx.Exec(ctx, `UPDATE kidoban_batches SET sequences = int8multirange(range_merge(sequences))
			WHERE (SELECT count(*) FROM unnest(sequences)) > $1`, maxRanges)
		return err
	})
}
