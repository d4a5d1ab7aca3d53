package cli_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/version"
)

func TestVersion(t *testing.T) {
	for args, want := range map[string]string{
		"--version":               version.String() + "\n",
		"version --client":        "client       " + version.String() + "\n",
		"version --client -ojson": "{\n  \"apiVersion\": \"cli.kidoban.dev/v1alpha1\",\n  \"kind\": \"Versions\",\n  \"client\": \"" + version.String() + "\"\n}\n",
	} {
		if got := help(t, strings.Fields(args)...); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// TestVersionsOfTheCluster takes versions from images, with a tag, a digest, and a registry with a port.
func TestVersionsOfTheCluster(t *testing.T) {
	pods := func(images ...string) string {
		var items []string
		for _, image := range images {
			items = append(items, `{"spec": {"containers": [{"name": "c", "image": "`+image+`"}]}}`)
		}
		return `{"apiVersion": "v1", "kind": "PodList", "items": [` + strings.Join(items, ",") + `]}`
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := ""
		switch {
		case r.URL.Path == "/api":
			answer = `{"kind": "APIVersions", "versions": ["v1"]}`
		case r.URL.Path == "/apis":
			answer = `{"kind": "APIGroupList", "apiVersion": "v1", "groups": []}`
		case r.URL.Path == "/api/v1":
			answer = `{"kind": "APIResourceList", "groupVersion": "v1", "resources": [{"name": "pods", "namespaced": true, "kind": "Pod", "verbs": ["list"]}]}`
		case strings.Contains(r.URL.RawQuery, "controller"):
			answer = pods("registry:5000/k/controller:v0.1.0", "registry:5000/k/controller:v0.1.0")
		case strings.Contains(r.URL.RawQuery, "observer"):
			answer = pods("registry:5000/k/observer:v0.3.0")
		case strings.Contains(r.URL.RawQuery, "agent"):
			answer = pods("registry:5000/k/agent:v0.1.0", "k/agent@sha256:0123", "registry:5000/k/agent")
		}
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(server.Close)
	env, out := testEnv()
	dir := t.TempDir()
	env.Config.CacheDir = &dir
	root := cli.New(env)
	root.SetArgs([]string{"version", "--server", server.URL})
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "client       " + version.String() + "\ncontroller   v0.1.0 (2)\nagents       latest (1), sha256:0123 (1), v0.1.0 (1)\n" +
		"observer     v0.3.0 (1)\nobserver v0.3.0 and agents v0.1.0 are more than one minor version apart: see docs/upgrade.md\n"
	if got := out.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
