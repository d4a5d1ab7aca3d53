package main

import (
	"context"
	"net/url"
	"slices"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/postgres"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
)

// isDatabase reports whether the store is a PostgreSQL database, and not a directory.
func (o *options) isDatabase() bool {
	return strings.HasPrefix(o.store, "postgres://") || strings.HasPrefix(o.store, "postgresql://")
}

// storeName is the store as logs show it: without a password.
func (o *options) storeName() string {
	if !o.isDatabase() {
		return o.store
	}
	u, err := url.Parse(o.store)
	if err != nil {
		return "postgres"
	}
	return u.Redacted()
}

// openStore opens the store that the flags name.
func (o *options) openStore(ctx context.Context) (store.Store, error) {
	log := ctrl.Log.WithName("store")
	if o.isDatabase() {
		return postgres.Open(ctx, o.store, o.limits, log)
	}
	return sqlite.Open(o.store, o.limits, log)
}

// live returns what passes stored batches to readers that follow, and what has to run for that. With a database, readers of each replica
// follow what all replicas store.
func live(kept store.Store, f *flows.Flows) (stored func([]store.Batch), follow manager.RunnableFunc) {
	shared, ok := kept.(*postgres.Store)
	if !ok {
		return f.Stored, func(context.Context) error { return nil }
	}
	return func(batches []store.Batch) { f.Stored(losses(batches)) }, func(ctx context.Context) error {
		shared.Follow(ctx, f.Stored)
		return nil
	}
}

// losses returns batches without their reports.
func losses(batches []store.Batch) []store.Batch {
	out := slices.Clone(batches)
	for i := range out {
		out[i].Reports = nil
	}
	return out
}
