package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// Make is a call of make in the clone, in which kubectl is this cluster's.
func (c *Cluster) Make(ctx context.Context, args ...string) *exec.Cmd {
	kubectl := fmt.Sprintf("KUBECTL=%s --name=%s kubectl --", c.Program, c.Name)
	cmd := exec.CommandContext(ctx, "make", append([]string{"--no-print-directory", kubectl}, args...)...)
	cmd.Dir = c.Repo
	cmd.Env = append(os.Environ(), "MAKEFLAGS=") // this process may run under make
	return cmd
}
