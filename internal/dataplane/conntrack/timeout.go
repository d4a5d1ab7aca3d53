package conntrack

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// defaultTimeout is the kernel's own for established TCP connections.
const defaultTimeout = 5 * 24 * time.Hour

// EstablishedTimeout returns how long conntrack keeps an established TCP connection without packets, in the
// network namespace of the calling thread. Where that cannot be read it is the kernel's default.
func EstablishedTimeout() time.Duration {
	text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established")
	if err != nil {
		return defaultTimeout
	}
	seconds, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return defaultTimeout
	}
	return time.Duration(seconds) * time.Second
}
