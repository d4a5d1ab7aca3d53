//go:build !linux

package lab

import (
	"context"
	"errors"

	"github.com/kidoban/kidoban/internal/cli/command"
)

func start(context.Context, *command.Env, *options) error {
	return errors.New("the lab needs Linux: it tries policies in the kernel (matrix and explain say here what they mean)")
}
