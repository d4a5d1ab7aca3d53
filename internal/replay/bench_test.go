package replay

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// writeDay writes a recording of a day of a cluster of 500 workloads with 3 pods each, and of 5,000 pairs of workloads that talk with each other
// every minute. A tenth of the pairs are of a workload and 50 addresses outside. Policies of all namespaces change, so that each flow is judged.
func writeDay(b *testing.B, out io.Writer, records int) (o Options) {
	const workloads, namespaces, replicas, pairs, addresses = 500, 20, 3, 5000, 50
	random := rand.New(rand.NewPCG(1, 2))
	podOf := func(w, p int) observerapi.End {
		e := pod(fmt.Sprintf("ns%d", w%namespaces), fmt.Sprintf("workload-%d", w), fmt.Sprintf("10.%d.%d.%d", w/250, w%250, p+1),
			"pod-template-hash", fmt.Sprintf("6c9%05d", w), "app.kubernetes.io/part-of", "shop", "app.kubernetes.io/version", "1.4.2")
		e.Pod = fmt.Sprintf("workload-%d-6c9%05d-%05d", w, w, p)
		e.UID = fmt.Sprintf("%08d-0000-4000-8000-%012d", w, p)
		return e
	}
	if err := WriteHead(out, observerapi.Coverage{Since: day, Until: day.Add(24 * time.Hour)}, nil, nil); err != nil {
		b.Fatal(err)
	}
	w := NewWriter(out)
	numbers := map[[3]int]int{} // of flows, by pair, pod, and other pod or address
	for i := range records {
		at := day.Add(time.Duration(i) * 24 * time.Hour / time.Duration(records)).Truncate(time.Minute)
		k := [3]int{i % pairs, random.IntN(replicas), random.IntN(replicas)}
		if k[0]%10 == 0 {
			k[2] = random.IntN(addresses)
		}
		number, ok := numbers[k]
		if !ok {
			to := podOf((k[0]/workloads*7+k[0]+1)%workloads, k[2])
			if k[0]%10 == 0 {
				to = outside(fmt.Sprintf("198.51.%d.%d", k[0]/10%250, k[2]))
			}
			f := tcp(podOf(k[0]%workloads, k[1]), to, uint16(8080+k[0]%3))
			var err error
			if number, err = w.define(&f); err != nil {
				b.Fatal(err)
			}
			numbers[k] = number
		}
		if err := w.record(&row{number, nanosOf(at), nanosOf(at.Add(50 * time.Second)), uint64(1 + i%90)}); err != nil {
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
	return o
}

// countLines reads a file and does nothing else with it.
func countLines(b *testing.B, name string) (n int) {
	in, err := os.Open(name)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	for lines := bufio.NewReaderSize(in, chunkSize); ; {
		if _, err := lines.Peek(1); err != nil {
			return n
		}
		text, _ := lines.Peek(lines.Buffered())
		n += bytes.Count(text, []byte("\n"))
		_, _ = lines.Discard(len(text))
	}
}

// BenchmarkReplay replays recordings, one of which is a day of 10 million records. The ratio to counting the lines of the same file does not depend
// on the machine as the times do.
func BenchmarkReplay(b *testing.B) {
	for _, records := range []int{200_000, 10_000_000} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			name := filepath.Join(b.TempDir(), "day.jsonl")
			out, err := os.Create(name)
			if err != nil {
				b.Fatal(err)
			}
			o := writeDay(b, out, records)
			size, _ := out.Seek(0, io.SeekCurrent)
			if err := out.Close(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				in, err := os.Open(name)
				if err != nil {
					b.Fatal(err)
				}
				recording, err := Open(in)
				if err != nil {
					b.Fatal(err)
				}
				r, err := Run(b.Context(), recording, o)
				if err != nil || r.Judged.Records != uint64(records) || !r.WouldDeny() || len(r.Unknown) > 0 {
					b.Fatal(r.Judged, err)
				}
				_ = in.Close()
			}
			b.StopTimer()
			ours := b.Elapsed().Seconds() / float64(b.N)
			start := time.Now()
			countLines(b, name)
			b.ReportMetric(ours, "s")
			b.ReportMetric(float64(records)/ours, "records/s")
			b.ReportMetric(ours/time.Since(start).Seconds(), "times-counting-lines")
		})
	}
}
