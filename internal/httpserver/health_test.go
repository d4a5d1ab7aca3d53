package httpserver

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

func probe(h http.Handler, path string) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code
}

// A check that waits for a lock that is never released must neither hold up a probe nor pass for ever.
func TestAHangingCheckFailsAndHoldsUpNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hangs atomic.Bool
		release := make(chan struct{})
		defer close(release)
		live := RunChecks(t.Context(), map[string]healthz.Checker{
			"ping": healthz.Ping,
			"lock": func(*http.Request) error {
				if hangs.Load() {
					<-release
				}
				return nil
			},
		})
		h := Probes(live, live)
		synctest.Wait()
		want := func(path string, status int) {
			t.Helper()
			begun := time.Now()
			if got := probe(h, path); got != status {
				t.Errorf("%s: %d, want %d", path, got, status)
			}
			if took := time.Since(begun); took > 0 {
				t.Errorf("%s waited for %v", path, took)
			}
		}
		want("/healthz", http.StatusOK)
		hangs.Store(true)
		time.Sleep(StalledAfter)
		synctest.Wait()
		want("/healthz", http.StatusOK)
		time.Sleep(2 * checkInterval)
		synctest.Wait()
		want("/healthz", http.StatusInternalServerError)
		want("/healthz/lock", http.StatusInternalServerError)
		want("/healthz/ping", http.StatusOK)
	})
}

func TestProbesAnswerWithTheLastResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fails atomic.Bool
		away := func(*http.Request) error {
			if fails.Load() {
				return errors.New("away")
			}
			return nil
		}
		live := RunChecks(t.Context(), map[string]healthz.Checker{"ping": healthz.Ping})
		ready := RunChecks(t.Context(), map[string]healthz.Checker{"sync": away})
		h := Probes(live, ready)
		synctest.Wait()
		for _, isAway := range []bool{false, true, false} {
			fails.Store(isAway)
			time.Sleep(checkInterval)
			synctest.Wait()
			if got := probe(h, "/readyz") == http.StatusOK; got == isAway {
				t.Errorf("ready is %t, away %t", got, isAway)
			}
			if probe(h, "/healthz") != http.StatusOK {
				t.Error("a failing readiness check fails liveness")
			}
		}
		if probe(h, "/other") != http.StatusNotFound {
			t.Error("other paths are served")
		}
	})
}

func TestMetricsComeFromASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &registry{page: "one"}
		m := NewMetrics(r)
		read := func() (status int, body string, took time.Duration) {
			w, begun := httptest.NewRecorder(), time.Now()
			m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, PathMetrics, nil))
			return w.Code, w.Body.String(), time.Since(begun)
		}
		want := func(status int, body string, took time.Duration) {
			t.Helper()
			if s, b, d := read(); s != status || !strings.Contains(b, body) || d != took {
				t.Errorf("%d after %v: %s; want %d after %v with %q", s, d, b, status, took, body)
			}
		}
		want(http.StatusOK, "one", 0)
		r.set("two", nil, nil)
		want(http.StatusOK, "one", 0)
		if n := r.count(); n != 1 {
			t.Errorf("the registry was read %d times in a second", n)
		}
		time.Sleep(metricsRefresh)
		want(http.StatusOK, "two", 0)
		// A lock is held.
		hang := make(chan struct{})
		r.set("two", nil, hang)
		time.Sleep(metricsRefresh)
		want(http.StatusOK, "two", metricsPatience)
		want(http.StatusOK, "two", metricsPatience)
		if n := r.count(); n != 3 {
			t.Errorf("the registry that hangs was read again: %d", n)
		}
		time.Sleep(metricsStale)
		want(http.StatusServiceUnavailable, "hangs", metricsPatience)
		close(hang)
		synctest.Wait()
		r.set("three", nil, nil)
		time.Sleep(metricsRefresh)
		want(http.StatusOK, "three", 0)
		r.set("three", errors.New("invalid"), nil)
		time.Sleep(metricsRefresh)
		want(http.StatusServiceUnavailable, "invalid", 0)
	})
}
