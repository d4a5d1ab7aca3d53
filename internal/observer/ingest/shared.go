package ingest

import (
	"encoding/json"
	"sync"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// maxShared bounds what decisions holds. Beyond it all is forgotten.
const maxShared = 100_000

// decisions shares equal decisions, and ends that the directory does not have, between the reports of all nodes.
type decisions struct {
	mu   sync.Mutex
	all  map[string]*observerapi.Decision
	ends map[string]*observerapi.End
}

func (d *decisions) decision(text string, v observerapi.Decision) *observerapi.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return share(&d.all, text, v)
}

func (d *decisions) end(v observerapi.End) *observerapi.End {
	text, err := json.Marshal(v)
	if err != nil {
		return &v
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return share(&d.ends, string(text), v)
}

func share[T any](all *map[string]*T, text string, v T) *T {
	if known, ok := (*all)[text]; ok {
		return known
	}
	if *all == nil || len(*all) >= maxShared {
		*all = map[string]*T{}
	}
	(*all)[text] = &v
	return &v
}
