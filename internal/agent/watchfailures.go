package agent

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// watchFailures logs when watches begin to fail and when they work again. While the API server does not answer, each watch of each namespace
// fails, again and again.
type watchFailures struct {
	log logr.Logger

	mu      sync.Mutex
	failing bool
	last    time.Time // of the failures
}

// watches are all of this process: they ask one API server.
var watches = &watchFailures{log: log.Log.WithName("agent")}

// watchesQuiet is the time without a failure after which watches work again. client-go does not report that a watch succeeds, and waits up to a
// minute before it retries.
const watchesQuiet = 2 * time.Minute

// handle is a WatchErrorHandlerWithContext.
func (f *watchFailures) handle(ctx context.Context, r *toolscache.Reflector, err error) {
	if ctx.Err() != nil {
		return
	}
	ended := err == io.EOF || err == io.ErrUnexpectedEOF //nolint:errorlint // wrapped, it is that of a connection
	if ended || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		toolscache.DefaultWatchErrorHandler(ctx, r, err) // for which these are no failures
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = time.Now()
	if f.failing {
		f.log.V(1).Info("Cannot watch", "kind", r.TypeDescription(), "err", err.Error())
		return
	}
	f.failing = true
	f.log.Error(err, "Cannot watch the API server; the policies in force stay in force and the agent retries", "kind", r.TypeDescription())
	time.AfterFunc(watchesQuiet, f.over)
}

func (f *watchFailures) over() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if rest := watchesQuiet - time.Since(f.last); rest > 0 {
		time.AfterFunc(rest, f.over)
		return
	}
	f.failing = false
	f.log.Info("Watches of the API server work again", "for", watchesQuiet.String())
}
