package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/startup"
)

// logged are the lines of a log at its default level.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// logWatches has what is said of watches go to the test.
func logWatches(t *testing.T) *logged {
	out := &logged{}
	before := watches
	watches = &watchFailures{log: funcr.New(func(_, args string) {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.lines = append(out.lines, args)
	}, funcr.Options{})}
	t.Cleanup(func() { watches = before })
	return out
}

func TestAnAPIServerThatIsAwayIsOneLine(t *testing.T) {
	out := logWatches(t)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, "away", http.StatusInternalServerError)
	}))
	defer server.Close()

	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	mgr, err := manager.New(&rest.Config{Host: server.URL}, manager.Options{
		Scheme: scheme, Cache: CacheOptions("node"), Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
		MapperProvider: startup.Mapper(
			[]schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Pod"), v1alpha1.GroupVersion.WithKind("PolicyEndpoint")},
			[]schema.GroupVersionKind{corev1.SchemeGroupVersion.WithKind("Namespace")}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	watch := func(c cache.Cache, objects ...client.Object) {
		for _, object := range objects {
			if _, err := c.GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
				t.Fatal(err)
			}
		}
		running.Go(func() { _ = c.Start(ctx) })
	}
	watch(mgr.GetCache(), &corev1.Pod{})
	for _, namespace := range []string{"one", "two"} {
		c, err := NamespaceCaches(mgr, shared)(namespace)
		if err != nil {
			t.Fatal(err)
		}
		watch(c, &corev1.Namespace{}, &v1alpha1.PolicyEndpoint{})
	}
	for deadline := time.Now().Add(30 * time.Second); asked.Load() < 15; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("asked %d times", asked.Load())
		}
	}
	if got := out.all(); strings.Count(got, "\n") != 0 || !strings.Contains(got, "Cannot watch") {
		t.Errorf("%s", got)
	}
}

func TestTheEndOfWatchFailuresIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := logWatches(t)
		pods := toolscache.NewReflector(&toolscache.ListWatch{}, &corev1.Pod{}, toolscache.NewStore(toolscache.MetaNamespaceKeyFunc), 0)
		stopped, stop := context.WithCancel(t.Context())
		stop()
		watches.handle(stopped, pods, errors.New("stopped"))
		for _, harmless := range []error{apierrors.NewResourceExpired("old"), io.EOF, io.ErrUnexpectedEOF} {
			watches.handle(t.Context(), pods, harmless)
		}
		if got := out.all(); got != "" {
			t.Errorf("no failure is logged:\n%s", got)
		}
		for range 2 {
			for i := range 10 {
				watches.handle(t.Context(), pods, fmt.Errorf("refused %d: %w", i, io.ErrUnexpectedEOF))
				time.Sleep(time.Minute)
			}
			time.Sleep(watchesQuiet)
		}
		synctest.Wait()
		var said []string
		for _, line := range out.lines {
			switch {
			case strings.Contains(line, "Cannot watch") && strings.Contains(line, "refused 0") && strings.Contains(line, "v1.Pod"):
				said = append(said, "begin")
			case strings.Contains(line, "Watches of the API server"):
				said = append(said, "end")
			default:
				said = append(said, line)
			}
		}
		if got := strings.Join(said, " "); got != "begin end begin end" {
			t.Errorf("%s", got)
		}
	})
}
