package replay

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/observerapi"
)

func TestRecordingWithObjects(t *testing.T) {
	var file bytes.Buffer
	ns := corev1.Namespace{}
	ns.Name = "shop"
	if err := WriteHead(&file, observerapi.Coverage{Since: day, Until: day}, []string{"bank"}, &Objects{Namespaces: []corev1.Namespace{ns},
		Policies: Policies{NetworkPolicies: networkPolicies(t, []string{denyIngress})}}); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(&file)
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
	all, err := Distinct(t.Context(), in, time.Time{})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	got := all[0]
	if got.Destination.Address != f.Destination.Address || got.Source.Labels["app"] != "web" || got.Connections != 10 || !got.First.Equal(f.First) || !got.Last.Equal(f.Last) {
		t.Errorf("%+v", got)
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
	lines := strings.SplitAfter(good, "\n") // a head, two ends, a flow and its record, another flow and its record, and the last line
	without := func(n int) string { return strings.Join(slices.Delete(slices.Clone(lines), n, n+1), "") }
	for name, tc := range map[string]struct{ file, want string }{
		"empty":                   {"", "empty"},
		"other JSON":              {"{}\n", "not a recording"},
		"no JSON":                 {"hello\n", "line 1"},
		"other version":           {strings.Replace(good, "/v1", "/v2", 1), "not a recording"},
		"cut off at a line":       {strings.Join(lines[:7], ""), "cut off"},
		"cut off in a record":     {strings.Join(lines[:6], "") + lines[6][:20], "line 7"},
		"cut off in a flow":       {strings.Join(lines[:5], "") + lines[5][:20], "line 6"},
		"a record is missing":     {without(6), "counts 2"},
		"an end is missing":       {without(1), "line 2: end 1"},
		"an end comes twice":      {strings.Join(lines[:2], "") + good[len(lines[0]):], "line 3: end 0"},
		"a flow is missing":       {without(5), "line 6: flow 1"},
		"a flow comes twice":      {strings.Join(lines[:4], "") + lines[3] + strings.Join(lines[4:], ""), "line 5: flow 0"},
		"a flow without its end":  {without(2), "line 3: flow 0"},
		"a line is not known":     {lines[0] + "{}\n" + strings.Join(lines[1:], ""), "line 2: not a line"},
		"no record":               {strings.Join(lines[:4], "") + "hello\n" + strings.Join(lines[5:], ""), "line 5: not a record"},
		"a record without time":   {strings.Join(lines[:4], "") + "[0,0,0,1]\n" + strings.Join(lines[5:], ""), "line 5: not a record"},
		"written twice":           {good + good, "behind the end"},
		"more behind the end":     {good + strings.Repeat("\n", 2*chunkSize) + "x", "behind the end"},
		"only a head":             {lines[0], "cut off"},
		"a head that is cut off":  {lines[0][:20], "line 1"},
		"an address is not valid": {strings.Replace(good, "192.0.2.1", "192.0.2", 1), "line 3"},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := Open(strings.NewReader(tc.file))
			if err == nil {
				_, err = Run(t.Context(), in, Options{})
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

// FuzzRow compares the two directions of a record with each other, and the numbers with those that encoding/json reads.
func FuzzRow(f *testing.F) {
	for _, r := range []row{{0, 0, 1, 0}, {4999, 1795651200e9, 1795651260e9, 10}, {1, 1795651200123456789, 1795651200500000000, 7}} {
		f.Add(strings.TrimSpace(string(r.appendTo(nil))))
	}
	for _, text := range []string{"[1,2,3]", "[1, 2,3,4]", "[01,2,3,4]", "[1,2.,3,4]", "[1,2.0000000001,3,4]", "[-1,2,3,4]", "[99,2,3,4]", "[1,2,0,4]", "[1,2,3,4]]", "[1,9999999999,9999999999,18446744073709551616]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var got, again row
		if got.read([]byte(line), 50) != nil {
			return
		}
		var numbers []json.Number
		if err := json.Unmarshal([]byte(line), &numbers); err != nil || len(numbers) != 4 {
			t.Fatalf("%q is read as %+v, and is not a list of 4 numbers: %v", line, got, err)
		}
		if want, err := numbers[3].Int64(); err != nil || uint64(want) != got.connections {
			t.Errorf("%q: %d connections: %v", line, got.connections, err)
		}
		if want, err := numbers[1].Float64(); err != nil || math.Abs(want-float64(got.first)/1e9) > 1e-5 {
			t.Errorf("%q: first %d: %v", line, got.first, err)
		}
		if err := again.read(bytes.TrimSpace(got.appendTo(nil)), 50); err != nil || again != got {
			t.Errorf("%q: %+v, written and read again %+v: %v", line, got, again, err)
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
