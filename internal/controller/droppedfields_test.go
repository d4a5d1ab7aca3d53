package controller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
)

func TestFieldsThatAnOlderCRDDrops(t *testing.T) {
	var warnings []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, text := range warnings {
			w.Header().Add("Warning", `299 - "`+strings.ReplaceAll(text, `"`, `\"`)+`"`)
		}
	}))
	defer server.Close()
	var logged []string
	config := &rest.Config{Host: server.URL}
	d := WatchDroppedFields(config, funcr.New(func(_, args string) { logged = append(logged, args) }, funcr.Options{}))
	recorder := events.NewFakeRecorder(10)
	d.setRecorder(recorder)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	const crd = "policyendpoints.networking.kidoban.dev"
	before := testutil.ToFloat64(droppedFields.WithLabelValues(crd))
	for _, c := range []struct {
		path     string
		warnings []string
		counted  int
		reported bool
	}{
		{path: "/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpoints", warnings: nil},
		{path: "/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpoints", warnings: []string{"v1alpha1 is deprecated"}},
		{path: "/apis/networking.k8s.io/v1/networkpolicies", warnings: []string{`unknown field "spec.new"`}},
		{"/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpoints", []string{`unknown field "spec.ingress[0].new"`, "other"}, 1, true},
		{"/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpoints/a", []string{`unknown field "spec.ingress[7].new"`}, 1, false},
		{"/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpoints/a/status", []string{`unknown field "status.new"`}, 1, true},
	} {
		warnings, logged = c.warnings, nil
		response, err := client.Get(server.URL + c.path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		after := testutil.ToFloat64(droppedFields.WithLabelValues(crd))
		if int(after-before) != c.counted {
			t.Errorf("%s, %q: counted %v, want %d", c.path, c.warnings, after-before, c.counted)
		}
		before = after
		if (len(logged) > 0) != c.reported || (len(recorder.Events) > 0) != c.reported {
			t.Errorf("%s, %q: %d log lines, %d events, want them: %v", c.path, c.warnings, len(logged), len(recorder.Events), c.reported)
		}
		if c.reported {
			if event := <-recorder.Events; !strings.Contains(event, "CRDTooOld") || !strings.Contains(logged[0], crd) {
				t.Errorf("event %q, log %q", event, logged)
			}
		}
	}
}

func TestCRDOfARequest(t *testing.T) {
	for path, want := range map[string]string{
		"/apis/networking.kidoban.dev/v1alpha1/namespaces/shop/policyendpointslices/a": "policyendpointslices.networking.kidoban.dev",
		"/apis/networking.kidoban.dev/v1alpha1/clusterpolicyendpoints/a/status":        "clusterpolicyendpoints.networking.kidoban.dev",
		"/apis/networking.kidoban.dev/v1alpha1":                                        "",
		"/apis/networking.kidoban.dev":                                                 "",
		"/api/v1/namespaces/policyendpoints":                                           "",
	} {
		if got := crdOf(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}
