package main

import (
	"context"
	"net/url"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"

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
