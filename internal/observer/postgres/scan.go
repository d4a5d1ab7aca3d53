package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// block is how many rows are read at once.
const block = 2000

// Scan implements store.Store.
func (s *Store) Scan(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	order := " ORDER BY span DESC"
	if q.Oldest {
		order = " ORDER BY span"
	}
	return s.read(ctx, yield, func(tx pgx.Tx, p *part) ([]string, error) {
		if p.state == stateRolled {
			query, err := sumsQuery(ctx, tx, p, q)
			return []string{query}, err
		}
		where, err := condition(ctx, tx, p, q, "", 1)
		return []string{rowsOf(p, 1, "SELECT "+columns+" FROM "+table(tableExact, p.id)+where)}, err
	}, order)
}

// Sums implements store.Store. What was appended since the sums were made last is summed up here.
func (s *Store) Sums(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	return s.read(ctx, yield, func(tx pgx.Tx, p *part) ([]string, error) {
		query, err := sumsQuery(ctx, tx, p, q)
		if err != nil || p.state == stateRolled || p.state == stateReady {
			return []string{query}, err
		}
		where, err := condition(ctx, tx, p, q, "e.", perMinute)
		if where == "" {
			where = " WHERE true"
		}
		rest := summed(p.id, fmt.Sprintf("%s AND e.tx >= '%d'", strings.TrimPrefix(where, " WHERE "), p.watermark))
		return []string{query, rowsOf(p, perMinute, "SELECT "+columns+" FROM ("+rest+") r")}, err
	}, "")
}

func sumsQuery(ctx context.Context, tx pgx.Tx, p *part, q store.Query) (string, error) {
	spans := int64(perMinute)
	if p.state == stateRolled {
		spans = perHour
	}
	where, err := condition(ctx, tx, p, q, "", spans)
	return rowsOf(p, spans, "SELECT "+columns+" FROM "+table(tableSums, p.id)+where), err
}

// rowsOf adds to the rows of a query the part and the length of their spans.
func rowsOf(p *part, spans int64, query string) string {
	return strings.Replace(query, "SELECT ", fmt.Sprintf("SELECT %d::bigint AS part, %d::int AS spans, ", p.id, spans), 1)
}

// condition is the WHERE of a query of rows of a part, whose spans are as long as so many of ten seconds.
func condition(ctx context.Context, tx pgx.Tx, p *part, q store.Query, prefix string, spans int64) (string, error) {
	since, until := spanOf(q.Since), spanOf(q.Until.Add(store.Exact-1))
	terms := []string{
		fmt.Sprintf("%sspan >= %d", prefix, clamp(since-since%spans)), fmt.Sprintf("%sspan < %d", prefix, clamp(until)),
	}
	if q.Namespace != "" {
		ids, err := endsOf(ctx, tx, p, q)
		if err != nil {
			return "", err
		}
		terms = append(terms, fmt.Sprintf("(%[1]ssource = ANY(%[2]s) OR %[1]sdestination = ANY(%[2]s))", prefix, array(ids)))
	}
	if q.Policy.Name != "" {
		ids, err := decisionsOf(ctx, tx, p, q.Policy)
		if err != nil {
			return "", err
		}
		terms = append(terms, fmt.Sprintf("%sdecision = ANY(%s)", prefix, array(ids)))
	}
	return " WHERE " + strings.Join(terms, " AND "), nil
}

// clamp is a span that the column can have.
func clamp(span int64) int64 { return min(max(span, 0), 1<<31-1) }

func array(ids []int64) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = strconv.FormatInt(id, 10)
	}
	return "'{" + strings.Join(parts, ",") + "}'::bigint[]"
}

// endsOf returns the numbers of a namespace's or workload's ends.
func endsOf(ctx context.Context, tx pgx.Tx, p *part, q store.Query) ([]int64, error) {
	rows, err := tx.Query(ctx, "SELECT id FROM "+table(tableNames, p.id)+" WHERE kind IN ($1, $2) AND namespace = $3 AND ($4 = '' OR workload = $4)",
		kindEnd, kindOutside, q.Namespace, q.Workload)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// decisionsOf returns the numbers of decisions that a policy has made, or would.
func decisionsOf(ctx context.Context, tx pgx.Tx, p *part, policy store.Policy) ([]int64, error) {
	rows, err := tx.Query(ctx, "SELECT id, text FROM "+table(tableNames, p.id)+" WHERE kind = $1", kindDecision)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ids []int64
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return nil, err
		}
		var d observerapi.Decision
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return nil, err
		}
		if isOf(policy, &d) {
			ids = append(ids, id)
		}
	}
	return ids, rows.Err()
}

// isOf reports whether a decision names a policy.
func isOf(policy store.Policy, d *observerapi.Decision) bool {
	same := func(r agentapi.PolicyRef) bool {
		return store.Policy{Kind: r.Kind, Namespace: r.Namespace, Name: r.Name} == policy
	}
	return d.Policy != nil && same(d.Policy.PolicyRef) || slices.ContainsFunc(d.IsolatedBy, same) || slices.ContainsFunc(d.AuditedBy, same)
}

// errEnough is how a reader that has enough ends a transaction.
var errEnough = errors.New("the reader has enough")

// read runs the queries of all parts as one, in a transaction that sees one state of the store, and yields the rows as reports.
func (s *Store) read(ctx context.Context, yield func(*store.Report) bool, queries func(pgx.Tx, *part) ([]string, error), order string) error {
	yielded := false
	for attempt := 1; ; attempt++ {
		err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			var all []string
			ps, err := lockedParts(ctx, tx)
			if err != nil {
				return err
			}
			for i := range ps {
				some, err := queries(tx, &ps[i])
				if err != nil {
					return err
				}
				all = append(all, some...)
			}
			if len(all) == 0 {
				return nil
			}
			if _, err := tx.Exec(ctx, "DECLARE reports NO SCROLL CURSOR FOR ("+strings.Join(all, ") UNION ALL (")+")"+order); err != nil {
				return err
			}
			for {
				more, err := s.readBlock(ctx, tx, func(r *store.Report) bool {
					yielded = true
					return yield(r)
				})
				if err != nil || !more {
					return err
				}
			}
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

// row is a row of exact or sums.
type row struct {
	part                                   int64
	spans                                  int32
	span                                   int32
	source, destination, decision, service int64
	protocol                               string
	port                                   int32
	flags                                  int16
	connections, bytes                     int64
	first, last                            int32
}

// readBlock yields the next rows; false: there are no more.
func (s *Store) readBlock(ctx context.Context, tx pgx.Tx, yield func(*store.Report) bool) (bool, error) {
	fetched, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM reports", block))
	if err != nil {
		return false, err
	}
	rows, err := pgx.CollectRows(fetched, func(c pgx.CollectableRow) (r row, err error) {
		err = c.Scan(&r.part, &r.spans, &r.span, &r.source, &r.destination, &r.decision, &r.service, &r.protocol, &r.port, &r.flags,
			&r.connections, &r.bytes, &r.first, &r.last)
		return r, err
	})
	if err != nil {
		return false, err
	}
	ids := map[int64]map[int64]bool{}
	for i := range rows {
		r := &rows[i]
		if ids[r.part] == nil {
			ids[r.part] = map[int64]bool{}
		}
		for _, id := range []int64{r.source, r.destination, r.decision, r.service} {
			ids[r.part][id] = true
		}
	}
	known := map[int64]*texts{}
	for part, of := range ids {
		if known[part], err = s.names.read(ctx, tx, part, of); err != nil {
			return false, err
		}
	}
	var report store.Report
	for i := range rows {
		if err := rows[i].report(known[rows[i].part], &report); err != nil {
			return false, err
		}
		if !yield(&report) {
			return false, errEnough
		}
	}
	return len(rows) == block, nil
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
		return fmt.Errorf("part %d contains a row with names that it does not contain", r.part)
	}
	return nil
}
