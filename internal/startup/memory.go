package startup

import (
	"fmt"
	"os"
	"runtime/debug"
)

// leastHeap is the least that a program needs beside what is fixed.
const leastHeap = 64 << 20

// LimitMemory sets the Go runtime's soft limit for a container that may use limit bytes, of which others than Go's heap take up to fixed: to the rest less
// 10 %. A limit of 0 means none. The environment variable GOMEMLIMIT wins.
func LimitMemory(limit, fixed int64) error {
	if limit == 0 {
		return nil
	}
	if limit < fixed+leastHeap {
		return fmt.Errorf("--memory-limit=%d is too low: the BPF maps of two generations take up to %d MiB, and the program at least %d MiB; raise the container's memory limit or lower --map-entries",
			limit, fixed>>20, leastHeap>>20)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit((limit - fixed) / 10 * 9)
	}
	return nil
}
