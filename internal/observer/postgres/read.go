package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// errEnough is how a reader that has enough ends a transaction.
var errEnough = errors.New("the reader has enough")

// read runs a reader in a transaction that sees one state of the store: again if others disturbed it before it yielded anything.
func (s *Store) read(ctx context.Context, yield func(*store.Report) bool, do func(pgx.Tx, []part, func(*store.Report) bool) error) error {
	yielded := false
	for attempt := 1; ; attempt++ {
		err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			parts, err := lockedParts(ctx, tx)
			if err != nil {
				return err
			}
			// Compiling a query costs more than running it: there is one for each part.
			if err := exec(ctx, tx, "SET LOCAL jit = off"); err != nil {
				return err
			}
			return do(tx, parts, func(r *store.Report) bool {
				yielded = true
				return yield(r)
			})
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		if err == nil || yielded || attempt == attempts || !isDisturbed(err) {
			return err
		}
	}
}

// lockedParts returns the parts, whose tables stay until the transaction ends.
func lockedParts(ctx context.Context, tx pgx.Tx) ([]part, error) {
	ps, err := listParts(ctx, tx)
	if err != nil || len(ps) == 0 {
		return nil, err
	}
	var tables []string
	for _, p := range ps {
		tables = append(tables, table(tableSums, p.id), table(tableNames, p.id))
		if p.state != stateRolled {
			tables = append(tables, table(tableExact, p.id))
		}
	}
	_, err = tx.Exec(ctx, "LOCK TABLE "+strings.Join(tables, ", ")+" IN ACCESS SHARE MODE")
	return ps, err
}

// block is how many rows are read at once.
const block = 1000

// reader reads in a transaction.
type reader struct {
	*Store
	tx      pgx.Tx
	cursors int // that were opened
}

// cursor reads the rows of a query of one part.
type cursor struct {
	*reader
	name  string
	part  int64
	rows  []row
	known *texts
	ended bool // there are no rows after these
}

// open runs a query of a part, and reads its first rows.
func (r *reader) open(ctx context.Context, p *part, query string) (*cursor, error) {
	r.cursors++
	c := &cursor{reader: r, name: fmt.Sprint("reports", r.cursors), part: p.id}
	if err := exec(ctx, r.tx, "DECLARE "+c.name+" NO SCROLL CURSOR FOR "+query); err != nil {
		return nil, err
	}
	return c, c.fetch(ctx)
}

// fetch reads the next rows. The cursor is closed once there are no more.
func (c *cursor) fetch(ctx context.Context) error {
	fetched, err := c.tx.Query(ctx, fmt.Sprintf("FETCH %d FROM %s", block, c.name))
	if err != nil {
		return err
	}
	c.rows, err = pgx.CollectRows(fetched, func(of pgx.CollectableRow) (r row, err error) {
		err = of.Scan(&r.spans, &r.span, &r.source, &r.destination, &r.decision, &r.service, &r.protocol, &r.port, &r.flags,
			&r.connections, &r.bytes, &r.first, &r.last)
		return r, err
	})
	if err != nil {
		return err
	}
	if c.ended = len(c.rows) < block; c.ended {
		if err := exec(ctx, c.tx, "CLOSE "+c.name); err != nil {
			return err
		}
	}
	ids := map[int64]bool{}
	for i := range c.rows {
		for _, id := range []int64{c.rows[i].source, c.rows[i].destination, c.rows[i].decision, c.rows[i].service} {
			ids[id] = true
		}
	}
	c.known, err = c.names.read(ctx, c.tx, c.part, ids)
	return err
}

// next leaves the first row, and reads more if it was the last one.
func (c *cursor) next(ctx context.Context) error {
	c.rows = c.rows[1:]
	if len(c.rows) > 0 || c.ended {
		return nil
	}
	return c.fetch(ctx)
}

// all yields all rows of a query of a part.
func (r *reader) all(ctx context.Context, p *part, query string, yield func(*store.Report) bool) error {
	c, err := r.open(ctx, p, query)
	var report store.Report
	for ; err == nil && len(c.rows) > 0; err = c.next(ctx) {
		if err := c.rows[0].report(c.known, &report); err != nil {
			return err
		}
		if !yield(&report) {
			return errEnough
		}
	}
	return err
}

// row is a row of exact or sums.
type row struct {
	spans                                  int32
	span                                   int32
	source, destination, decision, service int64
	protocol                               string
	port                                   int32
	flags                                  int16
	connections, bytes                     int64
	first, last                            int32
}

// report sets a report to a row.
func (r *row) report(known *texts, out *store.Report) error {
	begin := time.Unix(int64(r.span)*int64(store.Exact.Seconds()), 0).UTC()
	after := func(ms int32) time.Time { return begin.Add(time.Duration(ms) * time.Millisecond) }
	service, hasService := known.words[r.service]
	*out = store.Report{
		Span: begin, Resolution: time.Duration(r.spans) * store.Exact, First: after(r.first), Last: after(r.last),
		Source: known.ends[r.source], Destination: known.ends[r.destination], Decision: known.decisions[r.decision], Service: service,
		Protocol: r.protocol, Port: uint16(r.port), Connections: uint64(r.connections), Bytes: uint64(r.bytes),
		Reply: r.flags&flagReply != 0, Continues: r.flags&flagContinues != 0, Beside: r.flags&flagBeside != 0,
	}
	if r.flags&flagIngress != 0 {
		out.Direction = store.Ingress
	}
	if out.Source == nil || out.Destination == nil || out.Decision == nil || !hasService {
		return errors.New("a row of the store has names that are not stored: its part was changed by hand")
	}
	return nil
}
