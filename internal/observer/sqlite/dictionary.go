package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"sync"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// dictionary is what readers have read of a partition's dictionary: by number.
type dictionary struct {
	ends      map[int64]*observerapi.End
	decisions map[int64]*observerapi.Decision
	words     map[int64]string
	loaded    bool
}

// maxInterned bounds the texts of which all partitions share what was read of them. Beyond it all are forgotten.
const maxInterned = 200_000

// interner shares what partitions have in common: most ends are in each of them.
type interner struct {
	mu        sync.Mutex
	ends      map[string]*observerapi.End
	decisions map[string]*observerapi.Decision
}

func (i *interner) end(text string) (*observerapi.End, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return interned(&i.ends, text)
}

func (i *interner) decision(text string) (*observerapi.Decision, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return interned(&i.decisions, text)
}

func interned[T any](all *map[string]*T, text string) (*T, error) {
	if v, ok := (*all)[text]; ok {
		return v, nil
	}
	v := new(T)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return nil, err
	}
	if len(*all) >= maxInterned || *all == nil {
		*all = map[string]*T{}
	}
	(*all)[text] = v
	return v, nil
}

// The end, decision or word of a number. They are in the dictionary before a row refers to them.

func (p *partition) end(ctx context.Context, i *interner, id int64) (*observerapi.End, error) {
	return entry(ctx, p, &p.known.ends, "SELECT text FROM ends WHERE id = ?", id, i.end)
}

func (p *partition) decision(ctx context.Context, i *interner, id int64) (*observerapi.Decision, error) {
	return entry(ctx, p, &p.known.decisions, "SELECT text FROM decisions WHERE id = ?", id, i.decision)
}

func (p *partition) word(ctx context.Context, id int64) (string, error) {
	if id == 0 {
		return "", nil
	}
	return entry(ctx, p, &p.known.words, "SELECT text FROM words WHERE id = ?", id, func(text string) (string, error) { return text, nil })
}

func entry[T any](ctx context.Context, p *partition, known *map[int64]T, query string, id int64, parse func(string) (T, error)) (v T, err error) {
	p.mu.Lock()
	v, ok := (*known)[id]
	p.mu.Unlock()
	if ok {
		return v, nil
	}
	var text string
	if err := p.db.QueryRowContext(ctx, query, id).Scan(&text); err != nil {
		return v, err
	}
	if v, err = parse(text); err != nil {
		return v, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if *known == nil {
		*known = map[int64]T{}
	}
	(*known)[id] = v
	return v, nil
}

// load reads the summaries' ends and all decisions and words at once, for a reader that will need most of them.
func (p *partition) load(ctx context.Context, i *interner) error {
	p.mu.Lock()
	loaded := p.known.loaded
	p.mu.Unlock()
	if loaded {
		return nil
	}
	d, err := dictionary{loaded: true}, error(nil)
	if d.ends, err = loadAll(ctx, p.db, "SELECT id, text FROM ends WHERE summary = id", i.end); err != nil {
		return err
	}
	if d.decisions, err = loadAll(ctx, p.db, "SELECT id, text FROM decisions", i.decision); err != nil {
		return err
	}
	if d.words, err = loadAll(ctx, p.db, "SELECT id, text FROM words", func(text string) (string, error) { return text, nil }); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, e := range p.known.ends {
		d.ends[id] = e
	}
	p.known = d
	return nil
}

func loadAll[T any](ctx context.Context, db *sql.DB, query string, parse func(string) (T, error)) (map[int64]T, error) {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	all := map[int64]T{}
	for rows.Next() {
		var id int64
		var text string
		if err := rows.Scan(&id, &text); err != nil {
			return nil, err
		}
		if all[id], err = parse(text); err != nil {
			return nil, err
		}
	}
	return all, rows.Err()
}
