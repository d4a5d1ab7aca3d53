package postgres

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Kinds of names.
const (
	kindEnd      = "e"
	kindDecision = "d"
	kindWord     = "w"
	// kindOutside is an end with an address that is no pod's and no node's: their number is bounded.
	kindOutside = "o"
)

// number of a text: the same in all replicas, parts and databases. 0 is the empty word.
func number(kind, text string) int64 {
	if kind == kindWord && text == "" {
		return 0
	}
	if kind == kindOutside {
		kind = kindEnd
	}
	h := sha256.Sum256([]byte(kind + text))
	return int64(binary.BigEndian.Uint64(h[:8]))
}

// name is a row of the table names.
type name struct {
	id, summary               int64
	kind, namespace, workload string
	text                      string
}

// maxKnown bounds each map of names. Beyond it, its content is forgotten.
const maxKnown = 200_000

// names is what a replica knows of names: they are the same in all parts.
type names struct {
	mu sync.Mutex
	// Reports share their ends and decisions, so most are found by their address in memory. Holding them keeps it theirs.
	ends      map[*observerapi.End][]name // the end and its summary
	decisions map[*observerapi.Decision]name
	// What readers read, by number.
	readEnds      map[int64]*observerapi.End
	readDecisions map[int64]*observerapi.Decision
	readWords     map[int64]string
	// stored are the numbers that a part contains, of the part that was pushed to last.
	part    int64
	stored  map[int64]bool
	outside int // of kindOutside among them
}

func newNames() *names {
	return &names{
		ends: map[*observerapi.End][]name{}, decisions: map[*observerapi.Decision]name{}, readEnds: map[int64]*observerapi.End{},
		readDecisions: map[int64]*observerapi.Decision{}, readWords: map[int64]string{},
	}
}

// remember adds to a map that must not grow for ever.
func remember[K comparable, V any](m map[K]V, k K, v V) {
	if len(m) >= maxKnown {
		clear(m)
	}
	m[k] = v
}

// end returns the rows of an end and of its summary, in this order; one row if it is its own summary.
func (n *names) end(e *observerapi.End) ([]name, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known, ok := n.ends[e]; ok {
		return known, nil
	}
	summary := store.Summary(e)
	of, err := endName(&summary)
	if err != nil {
		return nil, err
	}
	of.summary = of.id
	exact, err := endName(e)
	if err != nil {
		return nil, err
	}
	exact.summary = of.id
	out := []name{exact}
	if exact.id != of.id {
		out = append(out, of)
	}
	remember(n.ends, e, out)
	return out, nil
}

func endName(e *observerapi.End) (name, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return name{}, err
	}
	out := name{id: number(kindEnd, string(text)), kind: kindEnd, namespace: storable(e.Namespace), text: string(text)}
	if e.Workload != nil {
		out.workload = storable(e.Workload.Name)
	}
	if e.Pod == "" && e.UID == "" && !e.IsNode && e.Address.IsValid() {
		out.kind = kindOutside
	}
	return out, nil
}

// withoutAddress returns the rows of an end outside the cluster whose address is one too many.
func withoutAddress(e *observerapi.End) ([]name, error) {
	unknown := *e
	unknown.Address = netip.Addr{}
	out, err := endName(&unknown)
	out.summary = out.id
	return []name{out}, err
}

func (n *names) decision(d *observerapi.Decision) (name, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if known, ok := n.decisions[d]; ok {
		return known, nil
	}
	text, err := json.Marshal(d)
	if err != nil {
		return name{}, err
	}
	out := name{id: number(kindDecision, string(text)), kind: kindDecision, text: string(text)}
	remember(n.decisions, d, out)
	return out, nil
}

func word(text string) name {
	text = storable(text)
	return name{id: number(kindWord, text), kind: kindWord, text: text}
}

// storable is a text that PostgreSQL can store: one with a zero byte or invalid UTF-8 would make a batch fail each time it is pushed.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// pushing returns which of a part's names are known to be stored, and how many addresses outside the cluster the part contains.
func (n *names) pushing(ctx context.Context, tx pgx.Tx, part int64) (outside int, err error) {
	n.mu.Lock()
	known := n.part == part && n.stored != nil
	outside = n.outside
	n.mu.Unlock()
	if known {
		return outside, nil
	}
	rows, err := tx.Query(ctx, "SELECT id FROM "+table(tableNames, part)+" WHERE kind = $1", kindOutside)
	if err != nil {
		return 0, err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return 0, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.part, n.stored, n.outside = part, map[int64]bool{}, len(ids)
	for _, id := range ids {
		n.stored[id] = true
	}
	return n.outside, nil
}

// has reports whether a part is known to contain a name.
func (n *names) has(part, id int64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.part == part && n.stored[id]
}

// insertNames stores names in a part. Their order is the same in all replicas, so that two that store the same ones do not wait for each other.
func insertNames(ctx context.Context, tx pgx.Tx, part int64, added map[int64]name) error {
	if len(added) == 0 {
		return nil
	}
	sorted := make([]name, 0, len(added))
	for _, a := range added {
		sorted = append(sorted, a)
	}
	slices.SortFunc(sorted, func(a, b name) int { return cmp.Compare(a.id, b.id) })
	ids, summaries := make([]int64, len(sorted)), make([]int64, len(sorted))
	kinds, namespaces := make([]string, len(sorted)), make([]string, len(sorted))
	workloads, texts := make([]string, len(sorted)), make([]string, len(sorted))
	for i, a := range sorted {
		ids[i], summaries[i], kinds[i], namespaces[i], workloads[i], texts[i] = a.id, a.summary, a.kind, a.namespace, a.workload, a.text
	}
	_, err := tx.Exec(ctx, "INSERT INTO "+table(tableNames, part)+
		" SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[]) ON CONFLICT DO NOTHING",
		ids, kinds, summaries, namespaces, workloads, texts)
	return err
}

// committed notes that a part contains names.
func (n *names) committed(part int64, added map[int64]name) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.part != part {
		return
	}
	for id, a := range added {
		if a.kind == kindOutside && !n.stored[id] {
			n.outside++
		}
		n.stored[id] = true
	}
}

// texts are names by number, as readers need them.
type texts struct {
	ends      map[int64]*observerapi.End
	decisions map[int64]*observerapi.Decision
	words     map[int64]string
}

// read returns names of a part.
func (n *names) read(ctx context.Context, tx pgx.Tx, part int64, ids map[int64]bool) (*texts, error) {
	out := &texts{map[int64]*observerapi.End{}, map[int64]*observerapi.Decision{}, map[int64]string{0: ""}}
	missing := n.known(out, ids)
	if len(missing) == 0 {
		return out, nil
	}
	rows, err := tx.Query(ctx, "SELECT id, kind, text FROM "+table(tableNames, part)+" WHERE id = ANY($1)", missing)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var kind, text string
		if err := rows.Scan(&id, &kind, &text); err != nil {
			return nil, err
		}
		if err := n.learn(out, id, kind, text); err != nil {
			return nil, err
		}
	}
	return out, rows.Err()
}

// known adds the names that are known, and returns the numbers of the others.
func (n *names) known(out *texts, ids map[int64]bool) (missing []int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id := range ids {
		if e, ok := n.readEnds[id]; ok {
			out.ends[id] = e
		} else if d, ok := n.readDecisions[id]; ok {
			out.decisions[id] = d
		} else if w, ok := n.readWords[id]; ok {
			out.words[id] = w
		} else if id != 0 {
			missing = append(missing, id)
		}
	}
	return missing
}

func (n *names) learn(out *texts, id int64, kind, text string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch kind {
	case kindEnd, kindOutside:
		e := &observerapi.End{}
		if err := json.Unmarshal([]byte(text), e); err != nil {
			return err
		}
		remember(n.readEnds, id, e)
		out.ends[id] = e
	case kindDecision:
		d := &observerapi.Decision{}
		if err := json.Unmarshal([]byte(text), d); err != nil {
			return err
		}
		remember(n.readDecisions, id, d)
		out.decisions[id] = d
	case kindWord:
		remember(n.readWords, id, text)
		out.words[id] = text
	}
	return nil
}
