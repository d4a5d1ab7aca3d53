package inspect_test

import (
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
