package dataplane_test

import (
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }
