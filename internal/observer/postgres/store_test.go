//go:build postgres

package postgres_test

import (
	"testing"

	"github.com/kidoban/kidoban/internal/observer/store/storetest"
)

func TestStore(t *testing.T) {
	s := newServer(t)
	storetest.Run(t, func(t *testing.T) storetest.Place { return database(s.database(t)) })
}
