package main

import (
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
)

// openStore opens the store that the flags name.
func (o *options) openStore() (store.Store, error) {
	return sqlite.Open(o.store, o.limits, ctrl.Log.WithName("store"))
}
