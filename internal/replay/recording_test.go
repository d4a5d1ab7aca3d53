package replay

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/observerapi"
)

func TestRecordingWithObjects(t *testing.T) {
	var file bytes.Buffer
	ns := corev1.Namespace{}
	ns.Name = "shop"
	w, err := NewWriter(&file, observerapi.Coverage{Since: day, Until: day}, []string{"bank"}, &Objects{Namespaces: []corev1.Namespace{ns},
		Policies: Policies{NetworkPolicies: networkPolicies(t, []string{denyIngress})}})
	if err != nil {
		t.Fatal(err)
	}
	f := tcp(pod("shop", "web", "10.50.1.20"), outside("192.0.2.1"), 443)
	if err := w.Write(&f); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	in, err := Open(&file)
	if err != nil {
		t.Fatal(err)
	}
	if in.Hidden[0] != "bank" || in.Objects == nil || in.Objects.Namespaces[0].Name != "shop" || in.Objects.NetworkPolicies[0].Name != "default-deny" {
		t.Errorf("%+v", in)
	}
	n := 0
	if err := in.Flows(func(got *observerapi.Flow) error {
		n++
		if got.Destination.Address != f.Destination.Address || got.Source.Labels["app"] != "web" {
			t.Errorf("%+v", got)
		}
		return nil
	}); err != nil || n != 1 {
		t.Error(n, err)
	}
}

func TestAnAnswerOfTheObserverIsARecording(t *testing.T) {
	list := observerapi.FlowList{APIVersion: observerapi.APIVersion, Kind: "FlowList", Flows: []observerapi.Flow{tcp(pod("shop", "web", "10.50.1.20"), outside("192.0.2.1"), 443)}}
	for _, indent := range []string{"", "  "} {
		text, err := json.MarshalIndent(list, "", indent)
		if indent == "" {
			text, err = json.Marshal(list)
		}
		if err != nil {
			t.Fatal(err)
		}
		if r := run(t, text, Options{}); r.Judged.Connections != 10 {
			t.Errorf("%+v", r.Judged)
		}
	}
}

func TestUnusableRecordings(t *testing.T) {
	good := string(recordingOf(t, observerapi.Coverage{}, tcp(pod("shop", "web", "10.50.1.20"), outside("192.0.2.1"), 443), tcp(pod("shop", "web", "10.50.1.20"), outside("192.0.2.1"), 444)))
	lines := strings.SplitAfter(good, "\n")
	for name, tc := range map[string]struct{ file, want string }{
		"empty":                   {"", "empty"},
		"other JSON":              {"{}\n", "not a recording"},
		"no JSON":                 {"hello\n", "line 1"},
		"other version":           {strings.Replace(good, "/v1", "/v2", 1), "not a recording"},
		"cut off at a line":       {lines[0] + lines[1] + lines[2], "cut off"},
		"cut off in a line":       {lines[0] + lines[1] + lines[2][:40], "line 3"},
		"a line is missing":       {lines[0] + lines[1] + lines[3], "counts 2"},
		"a line is not a flow":    {lines[0] + lines[1] + "{}\n" + lines[2] + lines[3], "line 3: not a flow"},
		"written twice":           {good + good, "behind the end"},
		"only a head":             {lines[0], "cut off"},
		"a head that is cut off":  {lines[0][:20], "line 1"},
		"a decision is not valid": {strings.Replace(good, `"sides"`, `"egress":{"verdict":1},"sides"`, 1), "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := Open(strings.NewReader(tc.file))
			if err == nil {
				_, err = Run(t.Context(), in, Options{})
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if in, err = Open(strings.NewReader(tc.file)); err == nil {
				if err = in.Flows(func(*observerapi.Flow) error { return nil }); name != "written twice" && err == nil {
					t.Error("Flows reads it")
				}
			}
		})
	}
}

// FuzzLine compares the two ways in which a line is read.
func FuzzLine(f *testing.F) {
	for _, flow := range []observerapi.Flow{
		tcp(pod("shop", "web", "10.50.1.20", "a\"b", "ü"), outside("192.0.2.1", "a.example"), 443),
		{First: day, Last: day, Reply: true, Protocol: "ICMP", Service: "shop/web", Bytes: 7, Egress: &observerapi.Decision{Verdict: observerapi.Denied, Reason: "policy"}},
		tcp(node("n1", "10.0.0.1"), observerapi.End{Namespace: "x", Hidden: true}, 1),
	} {
		text, err := json.Marshal(flow)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"last":"2026-11-20T10:00:00Z","source":{},"destination":{},"port":65536}`))
	f.Add([]byte(`{"last":"2026-11-20T10:00:00Z","Source":{},"destination":{},"ingress":null,"connections":18446744073709551615}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.ContainsAny(line, "\n") {
			return
		}
		j := NewJudge(Cluster{}, Policies{})
		reader := newLineReader(j)
		flow, wantErr := parse(line)
		got, err := reader.read(line)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: error %v, encoding/json has %v", line, err, wantErr)
		}
		if err != nil {
			return
		}
		want := reader.recordOf(flow)
		if !got.first.Equal(want.first) || !got.last.Equal(want.last) || got.protocol != want.protocol || got.port != want.port ||
			got.verdict != want.verdict || got.connections != want.connections || got.reply != want.reply ||
			got.source.identity != want.source.identity || got.destination.identity != want.destination.identity ||
			got.source.party != want.source.party || got.destination.party != want.destination.party {
			t.Errorf("%q: %+v, encoding/json has %+v", line, got, want)
		}
	})
}

// A recording of several chunks, some of whose lines are longer than a chunk, is read as a short one is.
func TestLongRecordings(t *testing.T) {
	web, db := pod("shop", "web", "10.50.1.20"), pod("shop", "db", "10.50.2.10")
	long := pod("shop", "long", "10.50.1.21", "note", strings.Repeat("x", 3*chunkSize/2))
	var flows []observerapi.Flow
	for i := range 6000 {
		from := web
		if i%2500 == 7 {
			from = long
		}
		flows = append(flows, tcp(from, db, uint16(1+i%3)))
	}
	r := run(t, recordingOf(t, observerapi.Coverage{}, flows...), Options{After: Policies{NetworkPolicies: networkPolicies(t, []string{denyIngress})}})
	if r.Judged.Records != 6000 || len(r.Changes) != 6 {
		t.Errorf("%d records, %d changes", r.Judged.Records, len(r.Changes))
	}
	var denied uint64
	for _, c := range r.Changes {
		denied += c.Records
	}
	if denied != 6000 {
		t.Errorf("%d records would be denied", denied)
	}
}
