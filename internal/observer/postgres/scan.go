package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Scan implements store.Store. It merges the parts, and opens each when its time comes.
func (s *Store) Scan(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	return s.read(ctx, yield, func(tx pgx.Tx, parts []part, yield func(*store.Report) bool) error {
		if q.Namespace != "" || q.Policy.Name != "" {
			// A few rows of a part match: the planner must not go through all spans for the sake of their order.
			if err := exec(ctx, tx, "SET LOCAL cursor_tuple_fraction = 1"); err != nil {
				return err
			}
		}
		m := &merge{reader: reader{Store: s, tx: tx}, q: q, todo: parts}
		return m.run(ctx, yield)
	})
}

// exactQuery is a query of a part's reports by span.
func exactQuery(ctx context.Context, tx pgx.Tx, p *part, q store.Query) (string, error) {
	by := " ORDER BY span DESC"
	if q.Oldest {
		by = " ORDER BY span"
	}
	if p.state == stateRolled {
		query, err := sumsQuery(ctx, tx, p, q)
		return query + by, err
	}
	where, err := condition(ctx, tx, p, q, "", 1)
	return rowsOf(1, "SELECT "+columns+" FROM "+table(tableExact, p.id)+where) + by, err
}

// Sums implements store.Store. What was appended since the sums were made last is summed up here.
func (s *Store) Sums(ctx context.Context, q store.Query, yield func(*store.Report) bool) error {
	return s.read(ctx, yield, func(tx pgx.Tx, parts []part, yield func(*store.Report) bool) error {
		r := reader{Store: s, tx: tx}
		for i := range parts {
			p := &parts[i]
			query, err := sumsQuery(ctx, tx, p, q)
			if err != nil {
				return err
			}
			if err := r.all(ctx, p, query, yield); err != nil {
				return err
			}
			if p.state == stateRolled || p.state == stateReady {
				continue
			}
			where, err := condition(ctx, tx, p, q, "e.", perMinute)
			if err != nil {
				return err
			}
			rest := summed(p.id, fmt.Sprintf("%s AND e.tx >= '%d'", strings.TrimPrefix(where, " WHERE "), p.watermark))
			if err := r.all(ctx, p, rowsOf(perMinute, "SELECT "+columns+" FROM ("+rest+") r"), yield); err != nil {
				return err
			}
		}
		return nil
	})
}

func sumsQuery(ctx context.Context, tx pgx.Tx, p *part, q store.Query) (string, error) {
	spans := int64(perMinute)
	if p.state == stateRolled {
		spans = perHour
	}
	where, err := condition(ctx, tx, p, q, "", spans)
	return rowsOf(spans, "SELECT "+columns+" FROM "+table(tableSums, p.id)+where), err
}

// rowsOf adds to the rows of a query the length of their spans.
func rowsOf(spans int64, query string) string {
	return strings.Replace(query, "SELECT ", fmt.Sprintf("SELECT %d::int AS spans, ", spans), 1)
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
