package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// writer writes a partition. After an error it is of no use: its dictionary may have what was rolled back.
type writer struct {
	*partition
	conn *sql.DB // one connection

	ends      map[string]end
	decisions map[string]int64
	words     map[string]int64
	workloads map[workload]int64
	batches   map[generation]store.Sequences
	addresses int // outside the cluster, in ends
	// Reports share their ends and decisions, so most are found by their address in memory. Holding them keeps it theirs.
	knownEnds      map[*observerapi.End]end
	knownDecisions map[*observerapi.Decision]int64
}

// maxKnown bounds knownEnds and knownDecisions. Beyond it all are forgotten.
const maxKnown = 100_000

type workload struct{ namespace, name, kind string }

type generation struct{ node, name string }

// end is a number of the table ends, with its workload's and its summary's.
type end struct{ id, workload, summary int64 }

// createPartition makes an empty partition and opens it for writing.
func createPartition(dir string, start int64) (_ *writer, err error) {
	file := path(dir, prefixFlows, start)
	temporary := file + unfinished
	db, err := openWriter(temporary)
	if err != nil {
		return nil, err
	}
	_, err = db.Exec(schema + schemaExact + "PRAGMA wal_checkpoint(TRUNCATE)")
	// Closing the last connection removes the log, so that the file alone is the partition.
	if err = errors.Join(err, db.Close()); err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temporary))
	}
	p, err := openReader(file)
	if err != nil {
		return nil, err
	}
	w, err := openPartition(p)
	if err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	return w, nil
}

func openWriter(file string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-65536)&_pragma=temp_store(MEMORY)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// openPartition opens a partition for writing.
func openPartition(p *partition) (_ *writer, err error) {
	w := &writer{
		partition: p, ends: map[string]end{}, decisions: map[string]int64{}, words: map[string]int64{}, workloads: map[workload]int64{},
		batches: map[generation]store.Sequences{}, knownEnds: map[*observerapi.End]end{}, knownDecisions: map[*observerapi.Decision]int64{},
	}
	if w.conn, err = openWriter(p.path); err == nil {
		err = w.read()
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// close closes what is open for writing. Readers go on.
func (w *writer) close() error {
	if w.conn == nil {
		return nil
	}
	return w.conn.Close()
}

// read reads the dictionary.
func (w *writer) read() error {
	err := each(w.conn, "SELECT id, workload, summary, text FROM ends", func(rows *sql.Rows) error {
		var e end
		var text string
		if err := rows.Scan(&e.id, &e.workload, &e.summary, &text); err != nil {
			return err
		}
		w.ends[text] = e
		var v observerapi.End
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return err
		}
		if outside(&v) {
			w.addresses++
		}
		return nil
	})
	number := func(numbers map[string]int64) func(*sql.Rows) error {
		return func(rows *sql.Rows) error {
			var id int64
			var text string
			err := rows.Scan(&id, &text)
			numbers[text] = id
			return err
		}
	}
	return errors.Join(err,
		each(w.conn, "SELECT id, text FROM decisions", number(w.decisions)),
		each(w.conn, "SELECT id, text FROM words", number(w.words)),
		each(w.conn, "SELECT id, namespace, name, kind FROM workloads", func(rows *sql.Rows) error {
			var id int64
			var l workload
			err := rows.Scan(&id, &l.namespace, &l.name, &l.kind)
			w.workloads[l] = id
			return err
		}),
		readBatches(w.conn, w.batches))
}

// readBatches adds the batches that a partition contains.
func readBatches(db *sql.DB, batches map[generation]store.Sequences) error {
	return each(db, "SELECT node, generation, sequences FROM batches", func(rows *sql.Rows) error {
		var g generation
		var text string
		if err := rows.Scan(&g.node, &g.name, &text); err != nil {
			return err
		}
		var stored store.Sequences
		if err := json.Unmarshal([]byte(text), &stored); err != nil {
			return err
		}
		all := batches[g]
		all.Union(stored)
		batches[g] = all
		return nil
	})
}

func each(db *sql.DB, query string, row func(*sql.Rows) error) error {
	rows, err := db.Query(query)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// sum is a row of the table minutes.
type sum struct {
	span, source, destination, packed, decision, service int64
}

type sums struct{ connections, bytes, first, last int64 }

// columns of the tables that writer.write fills.
const (
	columnsExact   = 12
	columnsMinutes = 10
	// together is how many rows one statement inserts.
	together = 64
)

const onConflict = ` ON CONFLICT DO UPDATE SET connections = connections + excluded.connections, bytes = bytes + excluded.bytes,
	first = min(first, excluded.first), last = max(last, excluded.last)`

// write stores batches, of which none is stored yet, in one transaction. It returns what the partition then contains.
func (w *writer) write(ctx context.Context, batches []store.Batch, maxAddresses int) (content, error) {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return content{}, err
	}
	defer func() { _ = tx.Rollback() }() // without effect after the commit
	t := &transaction{
		writer: w, ctx: ctx, tx: tx, maxAddresses: maxAddresses, minutes: map[sum]sums{}, now: w.content,
	}
	if err := t.write(batches); err != nil {
		return content{}, err
	}
	return t.now, tx.Commit()
}

type transaction struct {
	*writer
	ctx          context.Context
	tx           *sql.Tx
	maxAddresses int

	exact   []any
	minutes map[sum]sums
	now     content
}

func (t *transaction) exec(query string, args ...any) error {
	_, err := t.tx.ExecContext(t.ctx, query, args...)
	return err
}

func (t *transaction) write(batches []store.Batch) error {
	touched := map[generation]bool{}
	for i := range batches {
		b := &batches[i]
		for j := range b.Reports {
			if err := t.report(&b.Reports[j]); err != nil {
				return err
			}
		}
		for _, l := range b.Losses {
			if err := t.exec(`INSERT INTO losses VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET packets = packets + excluded.packets,
				records = records + excluded.records, first = min(first, excluded.first), last = max(last, excluded.last)`,
				b.Node, l.Reason, round(l.First, store.Minute), l.First.UnixMilli(), l.Last.UnixMilli(), int64(l.Packets), int64(l.Records)); err != nil {
				return err
			}
		}
		received := b.Received.UnixMilli()
		if err := t.exec("INSERT INTO nodes VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last)",
			b.Node, received, received); err != nil {
			return err
		}
		g := generation{b.Node, b.Generation}
		all := t.batches[g]
		all.Add(b.Sequence)
		t.batches[g], touched[g] = all, true
	}
	for g := range touched {
		text, err := json.Marshal(t.batches[g])
		if err != nil {
			return err
		}
		if err := t.exec("INSERT OR REPLACE INTO batches VALUES (?, ?, ?)", g.node, g.name, string(text)); err != nil {
			return err
		}
	}
	if err := t.insert("INSERT INTO exact VALUES ", "", columnsExact, t.exact); err != nil {
		return err
	}
	rows := make([]any, 0, len(t.minutes)*columnsMinutes)
	for k, v := range t.minutes {
		rows = append(rows, k.span, k.source, k.destination, k.packed, k.decision, k.service, v.connections, v.bytes, v.first, v.last)
	}
	if err := t.insert("INSERT INTO minutes VALUES ", onConflict, columnsMinutes, rows); err != nil {
		return err
	}
	return t.exec("INSERT OR REPLACE INTO facts VALUES (?, ?), (?, ?), (?, ?)", factFirst, t.now.first, factLast, t.now.last, factReports, t.now.reports)
}

// insert inserts rows, many by one statement: each statement costs more than a row.
func (t *transaction) insert(head, tail string, columns int, values []any) error {
	row := "(?" + strings.Repeat(", ?", columns-1) + ")"
	for len(values) > 0 {
		n := min(len(values)/columns, together)
		if err := t.exec(head+row+strings.Repeat(", "+row, n-1)+tail, values[:n*columns]...); err != nil {
			return err
		}
		values = values[n*columns:]
	}
	return nil
}

// report adds a report to the rows.
func (t *transaction) report(r *store.Report) error {
	source, err := t.end(r.Source)
	if err != nil {
		return err
	}
	destination, err := t.end(r.Destination)
	if err != nil {
		return err
	}
	decision, err := t.decision(r.Decision)
	if err != nil {
		return err
	}
	service, err := t.word(r.Service)
	if err != nil {
		return err
	}
	protocol, err := t.word(r.Protocol)
	if err != nil {
		return err
	}
	packed := pack(r, protocol)
	span := round(r.First, store.Exact)
	if t.now.first == 0 || span < t.now.first {
		t.now.first = span
	}
	t.now.last = max(t.now.last, span)
	connections, bytes := int64(r.Connections), int64(r.Bytes)
	after := func(span int64) (first, last int64) {
		return r.First.UnixMilli() - span*1000, max(r.Last.UnixMilli(), r.First.UnixMilli()) - span*1000
	}
	first, last := after(span)
	t.exact = append(t.exact, key(span, t.now.reports), source.id, destination.id, source.workload, destination.workload, packed, decision, service,
		connections, bytes, first, last)
	t.now.reports++

	minute := roundSeconds(span, sumSpan)
	first, last = after(minute)
	k := sum{minute, source.summary, destination.summary, packed, decision, service}
	if s, ok := t.minutes[k]; ok {
		t.minutes[k] = sums{s.connections + connections, s.bytes + bytes, min(s.first, first), max(s.last, last)}
	} else {
		t.minutes[k] = sums{connections, bytes, first, last}
	}
	return nil
}

// outside reports whether an end is an address that is not the cluster's.
func outside(e *observerapi.End) bool {
	return e.UID == "" && e.Pod == "" && !e.IsNode && e.Address.IsValid()
}

func (t *transaction) end(e *observerapi.End) (end, error) {
	if known, ok := t.knownEnds[e]; ok {
		return known, nil
	}
	known, err := t.newEnd(*e)
	if err != nil {
		return end{}, err
	}
	if len(t.knownEnds) >= maxKnown {
		clear(t.knownEnds)
	}
	t.knownEnds[e] = known
	return known, nil
}

func (t *transaction) newEnd(v observerapi.End) (end, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return end{}, err
	}
	if e, ok := t.ends[string(text)]; ok {
		return e, nil
	}
	if outside(&v) {
		if t.addresses >= t.maxAddresses {
			v.Address = netip.Addr{}
			return t.newEnd(v)
		}
		t.addresses++
	}
	e := end{id: int64(len(t.ends) + 1)}
	if e.workload, err = t.workload(&v); err != nil {
		return end{}, err
	}
	t.ends[string(text)] = e // holds the number for the summary
	summary := store.Summary(&v)
	summaryText, err := json.Marshal(summary)
	if err != nil {
		return end{}, err
	}
	e.summary = e.id
	if string(summaryText) != string(text) {
		s, err := t.newEnd(summary)
		if err != nil {
			return end{}, err
		}
		e.summary = s.id
	}
	t.ends[string(text)] = e
	return e, t.exec("INSERT INTO ends VALUES (?, ?, ?, ?)", e.id, e.workload, e.summary, string(text))
}

// workload returns the number of an end's workload; 0 for what has none. Workloads without a name are their namespace's.
func (t *transaction) workload(e *observerapi.End) (int64, error) {
	if e.Namespace == "" {
		return 0, nil
	}
	l := workload{namespace: e.Namespace}
	if e.Workload != nil {
		l.name, l.kind = e.Workload.Name, e.Workload.Kind
	}
	if id, ok := t.workloads[l]; ok {
		return id, nil
	}
	id := int64(len(t.workloads) + 1)
	t.workloads[l] = id
	return id, t.exec("INSERT INTO workloads VALUES (?, ?, ?, ?)", id, l.namespace, l.name, l.kind)
}

func (t *transaction) decision(d *observerapi.Decision) (int64, error) {
	if id, ok := t.knownDecisions[d]; ok {
		return id, nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return 0, err
	}
	id, ok := t.decisions[string(text)]
	if !ok {
		id = int64(len(t.decisions) + 1)
		t.decisions[string(text)] = id
		if err := t.exec("INSERT INTO decisions VALUES (?, ?)", id, string(text)); err != nil {
			return 0, err
		}
	}
	if len(t.knownDecisions) >= maxKnown {
		clear(t.knownDecisions)
	}
	t.knownDecisions[d] = id
	return id, nil
}

// word returns the number of a text; 0 for none.
func (t *transaction) word(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if id, ok := t.words[text]; ok {
		return id, nil
	}
	id := int64(len(t.words) + 1)
	t.words[text] = id
	return id, t.exec("INSERT INTO words VALUES (?, ?)", id, text)
}

// closeTables makes the table hours and marks the partition as closed.
func (w *writer) closeTables(ctx context.Context) error {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	hour := int64(store.Hour / time.Second)
	if _, err := tx.ExecContext(ctx, `INSERT INTO hours SELECT span - span % ? AS hour, source, destination, packed, decision, service,
		sum(connections), sum(bytes), min(first + span % ? * 1000), max(last + span % ? * 1000)
		FROM minutes GROUP BY hour, source, destination, packed, decision, service`, hour, hour, hour); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO facts VALUES (?, 1)", factClosed); err != nil {
		return err
	}
	return tx.Commit()
}
