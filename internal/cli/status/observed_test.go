package status

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// lines of reports of nodes whose pod has a state.
func lines(t *testing.T, states map[string]string) string {
	t.Helper()
	var out strings.Builder
	for node, state := range states {
		line := observerapi.NodeReport{Node: node, Problem: "no answer"}
		if state != "" {
			content, err := json.Marshal(agentapi.NodeReport{Node: agentapi.Node{Version: "v1"}, Pods: []agentapi.Pod{{Name: "web", State: state}}, Denied: 3})
			if err != nil {
				t.Fatal(err)
			}
			line = observerapi.NodeReport{Node: node, Report: content}
		}
		if err := json.NewEncoder(&out).Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

// Pending pods are asked about again, of their nodes only. Nodes without an answer, and nodes that the cluster does not have, are left out.
func TestObserved(t *testing.T) {
	answers := []string{
		lines(t, map[string]string{"n1": agentapi.StateInForce, "n2": agentapi.StatePending, "n3": "", "other": agentapi.StateInForce}),
		lines(t, map[string]string{"n2": agentapi.StateInForce}),
	}
	var asked []string
	got, err := observed(context.Background(), func(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
		asked = append(asked, path+"?"+query.Encode())
		return io.NopCloser(strings.NewReader(answers[len(asked)-1])), nil
	}, 0, []string{"n1", "n2", "n3"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"/v1/nodes?", "/v1/nodes?node=n2"}, asked); diff != "" {
		t.Error(diff)
	}
	if len(got) != 2 || got["n1"] == nil || got["n2"] == nil || got["n2"].pods[0].State != agentapi.StateInForce || got["n1"].node.Version != "v1" || got["n1"].denied != 3 {
		t.Errorf("%+v", got)
	}
}

func TestObserverThatFails(t *testing.T) {
	_, err := observed(context.Background(), func(context.Context, string, url.Values) (io.ReadCloser, error) {
		return nil, errors.New("away")
	}, 0, []string{"n1"})
	if err == nil {
		t.Error("no error")
	}
	cut := lines(t, map[string]string{"n1": agentapi.StateInForce})
	if _, err = observed(context.Background(), func(context.Context, string, url.Values) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(cut[:len(cut)/2])), nil
	}, 0, []string{"n1"}); err == nil {
		t.Error("half a line is no error")
	}
}

func TestTextNamesTheObserver(t *testing.T) {
	var out strings.Builder
	s := example()
	s.Observer, s.Observed = "kidoban-observer-a", 1
	write(&out, false, s)
	if !strings.Contains(out.String(), "From the observer, pod kidoban-observer-a: the reports of 1 of 2 nodes.\n") {
		t.Error(out.String())
	}
}
