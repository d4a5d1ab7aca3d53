package explain

import (
	"context"
	"errors"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

func askAgents(context.Context, *command.Env, *model.Cluster, *Answer) error {
	return errors.New("--live: not yet")
}
