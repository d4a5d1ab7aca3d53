package replay

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

var day = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func pod(namespace, workload, address string, labels ...string) observerapi.End {
	out := observerapi.End{Namespace: namespace, Pod: workload + "-0", UID: namespace + workload, Workload: &agentapi.Workload{Kind: "Deployment", Name: workload}, Node: "n1",
		Labels: map[string]string{"app": workload}, NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace},
		NamedPorts: []observerapi.NamedPort{{Name: "http", Protocol: "TCP", Number: 8080}}}
	for i := 0; i < len(labels); i += 2 {
		out.Labels[labels[i]] = labels[i+1]
	}
	if address != "" {
		out.Address = netip.MustParseAddr(address)
	}
	return out
}

func outside(address string, names ...string) observerapi.End {
	return observerapi.End{Address: netip.MustParseAddr(address), DomainNames: names}
}

func node(name, address string) observerapi.End {
	return observerapi.End{IsNode: true, Node: name, Address: netip.MustParseAddr(address)}
}

// tcp is a flow that was allowed ten times in an hour.
func tcp(from, to observerapi.End, port uint16) observerapi.Flow {
	return observerapi.Flow{First: day, Last: day.Add(time.Hour), Source: from, Destination: to, Protocol: "TCP", Port: port,
		Verdict: observerapi.Allowed, Sides: observerapi.Complete, Connections: 10}
}

func networkPolicy(t testing.TB, text string) (out networkingv1.NetworkPolicy) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func clusterPolicy(t testing.TB, text string) (out cnp.ClusterNetworkPolicy) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func recordingOf(t testing.TB, coverage observerapi.Coverage, flows ...observerapi.Flow) []byte {
	t.Helper()
	var file bytes.Buffer
	if err := WriteHead(&file, coverage, nil, nil); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(&file)
	for i := range flows {
		if err := w.Write(&flows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func run(t testing.TB, file []byte, o Options) *Report {
	t.Helper()
	in, err := Open(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	out, err := Run(t.Context(), in, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
