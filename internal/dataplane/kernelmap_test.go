package dataplane_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
)

func TestAWriteThatFindsNoMemoryIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		fails int
		with  error
		tries int
		want  error
	}{
		"none at first":  {3, unix.ENOMEM, 4, nil},
		"none at all":    {1 << 20, unix.ENOMEM, 100, unix.ENOMEM},
		"no room":        {1, unix.E2BIG, 1, unix.E2BIG},
		"nothing to say": {0, nil, 1, nil},
	} {
		tries := 0
		err := dataplane.Patiently(func() error {
			if tries++; tries <= c.fails {
				return c.with
			}
			return nil
		})
		if tries != c.tries || !errors.Is(err, c.want) {
			t.Errorf("%s: %d tries, %v", name, tries, err)
		}
	}
}
