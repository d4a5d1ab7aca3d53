package serve

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// hasNode reports whether a text names a node of the fixture.
func hasNode(text string) bool {
	return strings.Contains(text, `"n1"`) || strings.Contains(text, `"n2"`) || strings.Contains(text, `"silent"`)
}

// A reader that may read no namespace learns from no answer which nodes there are, how many flows there are, or a name of a namespace.
func TestReaderWithoutRights(t *testing.T) {
	f := newFixture(t)
	f.fill()
	for _, path := range []string{observerapi.PathFlows, observerapi.PathEdges, observerapi.PathHits, observerapi.PathFlows + "?namespace=shop"} {
		code, body := f.get("none", path)
		if code != http.StatusOK || hasNode(body) || strings.Contains(body, "secret") || strings.Contains(body, "shop") {
			t.Errorf("%s: %d %s", path, code, body)
		}
		var answer struct{ Coverage observerapi.Coverage }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.Coverage.Losses) != 1 || answer.Coverage.Losses[0].Reason != observerapi.LossAbsent {
			t.Errorf("%s does not report that something is missing: %s", path, body)
		}
	}
	for _, path := range []string{observerapi.PathStatus, observerapi.PathNodes} {
		if code, body := f.get("none", path); code != http.StatusForbidden || hasNode(body) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

// Losses name nodes to a reader of a namespace, also if it asks about one without flows.
func TestLossesForAReaderOfANamespace(t *testing.T) {
	f := newFixture(t)
	nodes := func(token, query string) (out []string) {
		for _, l := range f.list(token, observerapi.PathFlows+query).Coverage.Losses {
			out = append(out, l.Node)
		}
		return out
	}
	if got := nodes("shop", "?namespace=shop"); len(got) != 3 {
		t.Errorf("without flows: %v", got)
	}
	if got := nodes("shop", "?namespace=secret"); len(got) != 1 || got[0] != "" {
		t.Errorf("about a namespace that it may not read: %v", got)
	}
	f.fill()
	if got := nodes("shop", ""); len(got) != 2 {
		t.Errorf("with flows: %v", got)
	}
}

func TestFollowWithoutRights(t *testing.T) {
	f := newFixture(t)
	f.fill()
	res := f.request("none", observerapi.PathFlows+"?follow&since=1h")
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewReader(res.Body)
	for range 2 {
		line, err := lines.ReadString('\n')
		if err != nil || hasNode(line) || !strings.Contains(line, `"losses":[{"node":""`) {
			t.Fatalf("%s, %v", line, err)
		}
		f.flows.Stored([]store.Batch{{Node: "n1", Generation: "h", Sequence: 1, Losses: []observerapi.Loss{{Node: "n1", Reason: "map", Packets: 7}}}})
	}
}

// Hubble's API shows nodes and numbers to readers of all namespaces only. The others can watch flows, and see that the observer is there.
func TestHubbleWithoutAllRights(t *testing.T) {
	f := newFixture(t)
	f.fill()
	conn, err := grpc.NewClient(strings.TrimPrefix(f.url, "https://"), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	client := observerpb.NewObserverClient(conn)
	for token, want := range map[string]struct {
		flows                int
		isAll, hasNodesOfGap bool
	}{"all": {4, true, true}, "shop": {3, false, true}, "none": {0, false, false}} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		nodes, err := client.GetNodes(ctx, &observerpb.GetNodesRequest{})
		if isAll := err == nil && len(nodes.GetNodes()) == 3; isAll != want.isAll || err != nil && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: nodes %v, %v", token, nodes, err)
		}
		state, err := client.ServerStatus(ctx, &observerpb.ServerStatusRequest{})
		if hasNumbers := state.GetNumFlows() > 0 && state.GetNumUnavailableNodes() != nil; err != nil || hasNumbers != want.isAll || hasNode(protojson.Format(state)) != want.isAll {
			t.Errorf("%s: status %v, %v", token, state, err)
		}
		namespaces, err := client.GetNamespaces(ctx, &observerpb.GetNamespacesRequest{})
		if err != nil || (len(namespaces.GetNamespaces()) > 0) != (want.flows > 0) {
			t.Errorf("%s: namespaces %v, %v", token, namespaces, err)
		}
		stream, err := client.GetFlows(ctx, &observerpb.GetFlowsRequest{Since: timestamppb.New(time.Now().Add(-time.Hour))})
		if err != nil {
			t.Fatal(err)
		}
		flows, states, gaps := 0, 0, ""
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			switch s := m.GetNodeStatus(); {
			case m.GetFlow() != nil:
				flows++
			case s.GetStateChange() == relaypb.NodeState_NODE_ERROR:
				gaps += protojson.Format(s)
			case s != nil:
				states++
			}
		}
		if flows != want.flows || (states > 0) != want.isAll || !strings.Contains(gaps, "are missing") || hasNode(gaps) != want.hasNodesOfGap {
			t.Errorf("%s: %d flows, %d states of nodes, gaps %s", token, flows, states, gaps)
		}
	}
}
