//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/matrix"
)

// TestShop asserts what `make demo` shows.
func TestShop(t *testing.T) {
	awaitInForce(t) // without policies
	var policies []client.Object
	files, err := filepath.Glob(filepath.Join(test.Repo, "examples", "shop", "policies", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) != "kustomization.yaml" {
			_, objects := readPolicies(t, file)
			policies = append(policies, objects...)
		}
	}
	for _, p := range policies {
		p.SetNamespace("shop") // by kustomization.yaml
	}
	create(t, policies...)
	tables := awaitInForce(t)
	for _, says := range []string{
		"open: frontend > backend 8000", "closed: frontend > database 5432", "open: backend > database 5439", "closed: backend > database 5440",
		"open: outside > frontend 8080", "closed: outside > backend 8000", "open: prometheus > database 9187", "closed: prometheus > database 5432",
		"open: backend > partner 443", "closed: backend > partner test 443", "open: backend > partner test 8443", "open: database > kube-dns 53/udp",
	} {
		check(t, tables, says)
	}
}

// TestPolicies applies the policies of each file in testdata/policies, and none else. Beside the comparison with what they
// mean by the evaluator stands what the file's comment says of some connections, by hand.
func TestPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/policies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no policies: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			comments, policies := readPolicies(t, file)
			create(t, policies...)
			tables := awaitInForce(t)
			for _, comment := range comments {
				if strings.HasPrefix(comment, "open") || strings.HasPrefix(comment, "closed") {
					check(t, tables, comment)
				}
			}
		})
	}
	t.Run("none is left", func(t *testing.T) { awaitInForce(t) })
}

// check holds a sentence against the connections by Pod IP: "open: frontend > backend 8000", or closed, in both
// families or, as "open6", in one, if the cluster has it.
func check(t *testing.T, tables []*matrix.Table, sentence string) {
	t.Helper()
	what, flow, ok1 := strings.Cut(sentence, ": ")
	source, endpoint, ok2 := strings.Cut(flow, " > ")
	space := strings.LastIndexByte(endpoint, ' ')
	if !ok1 || !ok2 || space < 0 {
		t.Fatalf("%q: want as \"open: frontend > backend 8000\"", sentence)
	}
	column := matrix.Column{Group: endpoint[:space], Port: endpoint[space+1:]}
	open := strings.HasPrefix(what, "open")
	family := strings.TrimPrefix(strings.TrimPrefix(what, "open"), "closed")
	found := 0
	for _, p := range tables[0].Probes {
		is4 := p.Endpoint.Target.Address.Addr().Is4()
		if p.Source.Row != source || p.Endpoint.Column != column || (family == "4" && !is4) || (family == "6" && is4) {
			continue
		}
		found++
		if p.Allowed != open {
			t.Errorf("%s, but the evaluator says otherwise: %s", sentence, p.String())
		}
	}
	hasFamily := slices.ContainsFunc(pods(t, "frontend")[0].Status.PodIPs, func(ip corev1.PodIP) bool {
		return family == "" || (family == "6") == strings.Contains(ip.IP, ":")
	})
	if found == 0 && hasFamily {
		t.Errorf("%s: no such connection was tried", sentence)
	}
}

// readPolicies reads the NetworkPolicies of a file, and the comments at its head.
func readPolicies(t *testing.T, file string) (comments []string, policies []client.Object) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			break
		}
		comments = append(comments, strings.TrimSpace(comment))
	}
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(string(b)), 4096)
	for {
		policy := &networkingv1.NetworkPolicy{}
		err := decoder.Decode(policy)
		if errors.Is(err, io.EOF) {
			return comments, policies
		}
		if err != nil || policy.Kind != "NetworkPolicy" {
			t.Fatalf("%s: %v", file, fmt.Errorf("kind %q: %w", policy.Kind, err))
		}
		policies = append(policies, policy)
	}
}

// create makes objects that the test deletes at its end.
func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := store.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := store.Client.Delete(context.Background(), o); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		})
	}
}
