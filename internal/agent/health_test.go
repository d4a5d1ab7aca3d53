package agent

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/httpserver"
)

// alive reports whether a kubelet's probe passes.
func alive(h http.Handler) bool {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, httpserver.PathLive, nil))
	return w.Code == http.StatusOK
}

// A kernel call that never returns stops the writer. A kubelet must notice after two minutes, and not before.
func TestLivenessFailsWhenTheWriterStandsStill(t *testing.T) {
	for name, hang := range map[string]struct {
		prepare func(*fakeKernel)
		stop    func(*running)
	}{
		"in a write": {nil, func(r *running) {
			r.kernel.setPace(time.Hour, 0, 0)
			r.add(pod("web", "10.0.0.1"))
			r.add(policyEndpoint("deny"))
		}},
		"at the start":   {func(k *fakeKernel) { k.chunks, k.chunk = 1, time.Hour }, func(*running) {}},
		"in a full read": {nil, func(r *running) { r.kernel.setPace(0, 1, time.Hour); r.sleep(time.Minute) }},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, hang.prepare, func(r *running) {
				live := httpserver.RunChecks(r.Context(), r.agent.Live())
				probes := httpserver.Probes(live, live)
				r.sleep(time.Second)
				hang.stop(r)
				r.sleep(time.Minute)
				if !alive(probes) {
					t.Error("the probe fails after a minute")
				}
				r.sleep(time.Minute + 10*time.Second)
				if alive(probes) {
					t.Error("the probe passes after more than two minutes")
				}
				r.kernel.setPace(0, 0, 0)
				r.stop()
				r.sleep(2 * time.Hour)
			})
		})
	}
}

func TestLivenessPassesWhileNothingHappens(t *testing.T) {
	run(t, nil, func(r *running) {
		live := httpserver.RunChecks(r.Context(), r.agent.Live())
		probes := httpserver.Probes(live, live)
		for range 60 {
			r.sleep(time.Minute)
			if !alive(probes) {
				t.Fatal("the probe of an idle agent fails")
			}
		}
	})
}

// Probes and metrics answer while another goroutine has the lock of the state, and keeps it.
func TestNothingThatListensWaitsForTheState(t *testing.T) {
	registry := prometheus.NewRegistry()
	a := New(nil, newFakeKernel(), Options{SharedNamespace: shared, RuleSeries: 10, Registry: registry, Log: logr.Discard()})
	handlers := map[string]http.Handler{httpserver.PathMetrics: httpserver.NewMetrics(registry)}
	handlers[httpserver.PathLive] = httpserver.Probes(httpserver.RunChecks(t.Context(), a.Live()), httpserver.RunChecks(t.Context(), a.Ready()))
	handlers[httpserver.PathReady] = handlers[httpserver.PathLive]
	ask := func(path string) int {
		w := httptest.NewRecorder()
		handlers[path].ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code
	}
	before := ask(httpserver.PathMetrics)
	<-time.After(1100 * time.Millisecond) // until the snapshot is old
	a.state.mu.Lock()
	defer a.state.mu.Unlock()
	for path := range handlers {
		begun := time.Now()
		code := ask(path)
		if took := time.Since(begun); took > time.Second || path == httpserver.PathMetrics && code != before {
			t.Errorf("%s: %d after %v", path, code, took)
		}
	}
}
