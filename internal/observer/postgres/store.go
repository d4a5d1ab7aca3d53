package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kidoban/kidoban/internal/observer/store"
)

const (
	// partTime is how long a part is pushed to.
	partTime = time.Hour
	// parts is how many parts with exact ends fit into the limit of bytes: one of them is dropped or rolled up at a time.
	parts = 16
	// attempts is how often a transaction that others disturb is tried.
	attempts = 5
)

// Store is a store.Store.
type Store struct {
	pool   *pgxpool.Pool
	limits store.Limits
	log    logr.Logger
	names  *names
}

var _ store.Store = (*Store)(nil)

// Open opens the store in a database, in whose current schema it makes its tables if there are none. The connection string is a URL
// (postgres://…) or libpq's key=value; pool_max_conns and others of pgxpool count, too.
func Open(ctx context.Context, connection string, limits store.Limits, log logr.Logger) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(connection)
	if err != nil {
		return nil, fmt.Errorf("read the PostgreSQL connection string: %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &Store{pool: pool, limits: limits, log: log, names: newNames()}
	if err := s.migrate(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open the store in PostgreSQL database %s at %s: %w", cfg.ConnConfig.Database, cfg.ConnConfig.Host, err)
	}
	return s, nil
}

func (s *Store) migrate(ctx context.Context) error {
	return s.transact(ctx, func(tx pgx.Tx) error {
		if err := exec(ctx, tx, fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockSchema), schema); err != nil {
			return err
		}
		var version int
		err := tx.QueryRow(ctx, "SELECT version FROM kidoban_schema").Scan(&version)
		if errors.Is(err, pgx.ErrNoRows) {
			_, err = tx.Exec(ctx, "INSERT INTO kidoban_schema VALUES ($1)", schemaVersion)
			return err
		}
		if err == nil && version > schemaVersion {
			err = fmt.Errorf("its schema has version %d, and this observer has %d: use a later observer", version, schemaVersion)
		}
		return err
	})
}

// Close ends the store. No other method may be called afterwards.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// transact runs a function in a transaction, again if others disturbed it.
func (s *Store) transact(ctx context.Context, do func(pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := pgx.BeginFunc(ctx, s.pool, do)
		if err == nil || attempt == attempts || !isDisturbed(err) {
			return err
		}
	}
}

// isDisturbed reports whether a transaction failed only because of another one: a deadlock, a serialization failure, a table that was
// dropped after the list of parts was read, or a lock that was not to be had in time.
func isDisturbed(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && slices.Contains([]string{"40P01", "40001", "42P01", "55P03"}, e.Code)
}

func exec(ctx context.Context, tx pgx.Tx, statements ...string) error {
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// part is a row of the table parts.
type part struct {
	id, started int64
	state       string
	// first and last span; both are 0 if there are none or the part is open.
	first, last int64
	reports     int64
	watermark   uint64
}

// isOpen reports whether the part is pushed to, so that its spans are not known.
func (p *part) isOpen() bool { return p.state == stateOpen }

// newest is the time of what is newest in a part, in Unix seconds.
func (p *part) newest() int64 { return max(p.started, p.last*int64(store.Exact.Seconds())) }

// listParts returns all parts, by number.
func listParts(ctx context.Context, tx pgx.Tx) ([]part, error) {
	rows, err := tx.Query(ctx, `SELECT id, started, state, coalesce(first, 0), coalesce(last, 0), reports, watermark::text::bigint
		FROM kidoban_parts ORDER BY id`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p part, err error) {
		var watermark int64
		err = row.Scan(&p.id, &p.started, &p.state, &p.first, &p.last, &p.reports, &watermark)
		p.watermark = uint64(watermark)
		return p, err
	})
}

// size returns the bytes of a part's tables.
func (p *part) size(ctx context.Context, tx pgx.Tx) (n int64, err error) {
	names := []string{table(tableExact, p.id), table(tableSums, p.id), table(tableNames, p.id)}
	err = tx.QueryRow(ctx, "SELECT coalesce(sum(pg_total_relation_size(to_regclass(t))), 0)::bigint FROM unnest($1::text[]) t", names).Scan(&n)
	return n, err
}
