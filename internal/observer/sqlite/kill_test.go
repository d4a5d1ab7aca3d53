package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observer/store/storetest"
)

const (
	killDir     = "KIDOBAN_TEST_STORE" // set: this process writes there until it is killed
	killBatches = 400
	killReports = 50
)

var (
	killBegin  = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	killLimits = store.Limits{Age: 1000 * time.Hour, ExactAge: 1000 * time.Hour, Bytes: 1 << 40, Addresses: 1000}
)

func killWorld() []store.Batch {
	batches := storetest.NewWorld(1, 3, 4, 2).Batches(killBegin, time.Hour, killBatches, killReports)
	for i := range batches { // over several files
		batches[i].Received = killBegin.Add(time.Duration(i) * time.Minute)
	}
	return batches
}

// A process that is killed while it writes has all that it has confirmed, and what is pushed again counts once.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		writeUntilKilled(dir)
		return
	}
	dir, confirmed := t.TempDir(), 0
	for _, stop := range []int{20, 90, 250} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), killDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for confirmed < stop && lines.Scan() {
			if _, err := fmt.Sscanf(lines.Text(), "confirmed %d", &confirmed); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	s, err := Open(dir, killLimits, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	count := func() (n int) {
		if err := s.Scan(t.Context(), store.Query{Since: killBegin.Add(-time.Hour), Until: killBegin.Add(2 * time.Hour)}, func(*store.Report) bool { n++; return true }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(); n < confirmed*killReports || n%killReports != 0 {
		t.Errorf("%d reports are stored, %d batches of %d were confirmed", n, confirmed, killReports)
	}
	if err := s.Put(t.Context(), killWorld()); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != killBatches*killReports {
		t.Errorf("%d reports are stored after all were pushed again, want %d", n, killBatches*killReports)
	}
}

// writeUntilKilled writes all batches, those that are stored already too, and prints how many are confirmed.
func writeUntilKilled(dir string) {
	s, err := Open(dir, killLimits, logr.Discard())
	if err != nil {
		panic(err)
	}
	for i, b := range killWorld() {
		if err := s.Put(context.Background(), []store.Batch{b}); err != nil {
			panic(err)
		}
		fmt.Println("confirmed", i+1)
	}
	select {} // until it is killed
}
