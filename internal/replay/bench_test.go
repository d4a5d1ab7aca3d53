package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// A recording of a cluster of 500 workloads with 3 pods each. Policies of all namespaces change, so that each flow is judged.
func benchRecording(b *testing.B, records int) (file []byte, o Options) {
	const workloads, namespaces = 500, 20
	var ends []observerapi.End
	for w := range workloads {
		for p := range 3 {
			e := pod(fmt.Sprintf("ns%d", w%namespaces), fmt.Sprintf("workload-%d", w), fmt.Sprintf("10.%d.%d.%d", w/250, w%250, p+1),
				"pod-template-hash", fmt.Sprintf("6c9%05d", w), "app.kubernetes.io/part-of", "shop", "app.kubernetes.io/version", "1.4.2")
			e.Pod = fmt.Sprintf("workload-%d-6c9%05d-%05d", w, w, p)
			e.UID = fmt.Sprintf("%08d-0000-4000-8000-%012d", w, p)
			ends = append(ends, e)
		}
	}
	var all bytes.Buffer
	w, err := NewWriter(&all, observerapi.Coverage{Since: day, Until: day.Add(24 * time.Hour)}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	for i := range records {
		from := &ends[i*7919%len(ends)]
		f := tcp(*from, ends[(i*7919+i%50*3+1)%len(ends)], uint16(8080+i%3))
		f.First, f.Last = day.Add(time.Duration(i)*time.Millisecond), day.Add(time.Duration(i)*time.Millisecond+time.Minute)
		if i%10 == 0 {
			f.Destination = observerapi.End{}
			f.Destination = outside(fmt.Sprintf("198.51.%d.%d", i/250%250, i%250))
		}
		f.Egress = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: "default-allow"}
		f.Ingress = &observerapi.Decision{Verdict: observerapi.Allowed, Reason: "policy", Tier: "NetworkPolicy"}
		if err := w.Write(&f); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	for n := range namespaces {
		o.After.NetworkPolicies = append(o.After.NetworkPolicies,
			networkPolicy(b, fmt.Sprintf("metadata: {name: deny, namespace: ns%d}\nspec: {podSelector: {matchLabels: {app: workload-%d}}}", n, n)),
			networkPolicy(b, fmt.Sprintf("metadata: {name: allow, namespace: ns%d}\nspec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 8080}, {port: 8081}]}]}", n)))
	}
	return all.Bytes(), o
}

// BenchmarkReplay replays a recording, and decodes the same with package encoding/json on one CPU: the ratio does not depend on the machine as
// the times do.
func BenchmarkReplay(b *testing.B) {
	const records = 200_000
	file, o := benchRecording(b, records)
	b.SetBytes(int64(len(file)))
	b.ResetTimer()
	for b.Loop() {
		in, err := Open(bytes.NewReader(file))
		if err != nil {
			b.Fatal(err)
		}
		r, err := Run(b.Context(), in, o)
		if err != nil || r.Judged.Records != records {
			b.Fatal(r.Judged, err)
		}
	}
	b.StopTimer()
	ours := b.Elapsed().Seconds() / float64(b.N)
	start := time.Now()
	decoder := json.NewDecoder(bytes.NewReader(file))
	for {
		var f observerapi.Flow
		if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(records/ours, "records/s")
	b.ReportMetric(time.Since(start).Seconds()/ours, "times-encoding/json")
}
