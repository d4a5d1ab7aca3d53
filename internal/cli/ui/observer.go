package ui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/observer"
	"github.com/kidoban/kidoban/internal/ui"
)

// ask the cluster's observer. It connects anew for each question: a replica may be gone and a token may have expired since the last one.
func ask(ctx context.Context, env *command.Env, namespace, path string, query url.Values) (io.ReadCloser, error) {
	o, err := connect(ctx, env, namespace)
	if err != nil {
		return nil, rights(err)
	}
	if o == nil {
		return nil, fmt.Errorf("there is no observer in namespace %s any more", namespace)
	}
	body, err := o.Open(ctx, path, query)
	return body, rights(err)
}

// rights marks the errors of a reader who lacks rights.
func rights(err error) error {
	var answer *observer.StatusError
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return ui.NoRights{Err: err}
	case errors.As(err, &answer) && (answer.Code == http.StatusUnauthorized || answer.Code == http.StatusForbidden):
		return ui.NoRights{Err: err}
	}
	return err
}

// connect to the cluster's observer; nil if there is none.
func connect(ctx context.Context, env *command.Env, namespace string) (*observer.Observer, error) {
	api, err := env.Client()
	if err != nil {
		return nil, err
	}
	return observer.Connect(ctx, env, api, namespace)
}
