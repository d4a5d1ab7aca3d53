package matrix

import (
	"context"
	"errors"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

func (t *Table) probe(context.Context, *command.Env, *model.Cluster) error {
	return errors.New("--probe: not yet")
}
