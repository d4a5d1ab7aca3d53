package sqlite

import (
	"testing"

	"github.com/go-logr/logr/testr"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observer/store/storetest"
)

type directory string

func (d directory) Open(t *testing.T, limits store.Limits) store.Store {
	t.Helper()
	s, err := Open(string(d), limits, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Place { return directory(t.TempDir()) })
}
