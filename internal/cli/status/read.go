package status

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// Read the status of kidoban, in its namespace, and of all policies.
func Read(ctx context.Context, env *command.Env, c client.Client, namespace string) (*Status, error) {
	return gather(ctx, env, c, namespace, selection{cluster: true})
}
