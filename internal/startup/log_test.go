package startup

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// out is of all runs of the test: controller-runtime takes the first logger of a process, and no other.
var out bytes.Buffer

func TestOneThingThatHappenedIsOneLine(t *testing.T) {
	out.Reset()
	opts := LogOptions()
	opts.DestWriter = &out
	SetLogger(&opts)

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
	for name, log := range map[string]func(){
		"ours":               func() { ctrl.Log.WithName("agent").WithValues("k", "v").Error(errors.New("away"), "Cannot do it") },
		"klog, structured":   func() { klog.ErrorS(errors.New("away"), "Cannot do it", "k", "v") },
		"klog, text":         func() { klog.Errorf("watch ended: %v", errors.New("away")) },
		"client-go's errors": func() { utilruntime.HandleError(errors.New("away")) },
	} {
		out.Reset()
		log()
		if got := out.String(); strings.Count(got, "\n") != 1 || strings.Contains(got, "stacktrace") || !strings.Contains(got, "away") || !json.Valid([]byte(got)) {
			t.Errorf("%s: an error is logged as\n%s", name, got)
		}
	}
	out.Reset()
	klog.V(2).Info("chatter")
	if out.Len() != 0 {
		t.Errorf("%s", &out)
	}
}
