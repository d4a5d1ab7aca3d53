package netnstest

import (
	"runtime"
	"testing"
	"time"
)

// A test that is ended from inside of a namespace ends at once, and says why.
func TestWhatEndsInsideIsNotWaitedFor(t *testing.T) {
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		onThread(t, func() error { runtime.Goexit(); return nil }) // as FailNow does
	}()
	select {
	case <-returned:
	case <-time.After(Patience):
		t.Fatal("it is waited for")
	}
}
