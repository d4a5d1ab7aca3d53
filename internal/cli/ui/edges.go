package ui

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/observer"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// mostEdges is how many sums an observer may answer.
const mostEdges = 50000

// edges asks the cluster's observer. It connects anew for each question: a replica may be gone and a token may have expired since the last one.
func edges(ctx context.Context, env *command.Env, namespace string, since time.Duration) (*observerapi.FlowList, error) {
	o, err := connect(ctx, env, namespace)
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("there is no observer in namespace %s any more", namespace)
	}
	out := &observerapi.FlowList{}
	return out, o.Get(ctx, observerapi.PathEdges, url.Values{"since": {since.String()}, "limit": {strconv.Itoa(mostEdges)}}, out)
}

// connect to the cluster's observer; nil if there is none.
func connect(ctx context.Context, env *command.Env, namespace string) (*observer.Observer, error) {
	api, err := env.Client()
	if err != nil {
		return nil, err
	}
	return observer.Connect(ctx, env, api, namespace)
}
