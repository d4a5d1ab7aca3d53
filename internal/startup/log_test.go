package startup

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

func TestOneThingThatHappenedIsOneLine(t *testing.T) {
	var out bytes.Buffer
	opts := LogOptions()
	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&opts), zap.WriteTo(&out)))

	// A probe that fails, with controller-runtime's own handler, as often as a kubelet asks.
	h := &healthz.Handler{Checks: map[string]healthz.Checker{"bad": func(*http.Request) error { return errors.New("bad") }}}
	for range 10 {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code == http.StatusOK {
			t.Fatal("the check passes")
		}
	}
	if out.Len() != 0 {
		t.Errorf("failing probes are logged:\n%s", &out)
	}
	ctrl.Log.WithName("agent").WithValues("k", "v").Error(errors.New("away"), "Cannot do it")
	if got := out.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "stacktrace") || !strings.Contains(got, "away") {
		t.Errorf("an error is logged as\n%s", got)
	}
}
