package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/serve"
	"github.com/kidoban/kidoban/internal/ui"
)

// uiFlag is the flag with the address of the map.
const uiFlag = "--ui-url"

// servePage adds the map, if its address is set. It reads policies with the observer's own rights, which the component observer-ui gives it.
func (o *options) servePage(to *serve.Options, config *rest.Config) error {
	if o.uiURL == "" {
		return nil
	}
	at, err := ui.ParseURL(o.uiURL)
	if err != nil {
		return err
	}
	reads, err := command.NewClient(config)
	if err != nil {
		return err
	}
	to.PagePath = at.Path
	to.Page = func(api http.Handler) http.Handler {
		return ui.Mounted{
			URL: at, Reader: readerOf(to.Guard), Ask: asker(serve.Ask(api)),
			Options: ui.Options{
				Name: at.Host, Live: true, Parse: parseManifests,
				Read: func(ctx context.Context) (*model.Cluster, error) { return command.Load(ctx, reads) },
			},
		}.Handler()
	}
	return nil
}

// readerOf a token, as the map asks for it.
func readerOf(guard *access.Guard) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, token string) (bool, error) {
		reader, err := guard.Reader(ctx, token)
		if errors.Is(err, access.ErrToken) {
			return false, ui.ErrToken
		}
		if err != nil {
			return false, access.ErrUnavailable
		}
		return reader.CanRead(ctx, "")
	}
}

// asker gives the API's answers the errors of the map.
func asker(ask func(ctx context.Context, token, path string, query url.Values) (io.ReadCloser, error)) func(context.Context, string, string, url.Values) (io.ReadCloser, error) {
	return func(ctx context.Context, token, path string, query url.Values) (io.ReadCloser, error) {
		body, err := ask(ctx, token, path, query)
		if status := (*serve.StatusError)(nil); errors.As(err, &status) && (status.Code == http.StatusForbidden || status.Code == http.StatusUnauthorized) {
			return nil, ui.NoRights{Err: err}
		}
		return body, err
	}
}

// parseManifests that a reader pastes, and reject what the API server would reject.
func parseManifests(text []byte) (*model.Cluster, error) {
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("manifests", bytes.NewReader(text)); err != nil {
		return nil, err
	}
	c, err := m.Cluster()
	if err != nil {
		return nil, err
	}
	return c, c.InvalidPolicies()
}
