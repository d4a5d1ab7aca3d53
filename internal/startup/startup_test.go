package startup

import (
	"net/http"
	"testing"

	"k8s.io/client-go/rest"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func TestAnEmptyAddressServesNoMetrics(t *testing.T) {
	for addr, want := range map[string]bool{"": false, "0": false, ":8162": true} {
		s, err := metricsserver.NewServer(Metrics(addr), &rest.Config{}, http.DefaultClient)
		if err != nil {
			t.Fatal(err)
		}
		if got := s != nil; got != want {
			t.Errorf("%q: there is a server: %t, want %t", addr, got, want)
		}
	}
}
