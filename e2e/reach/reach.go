// Package reach finds out by real connections whether one place of a network reaches another: the client, the server
// that answers it, and the form in which results travel from one process to another.
//
// It uses nothing but the standard library: it is all that the probe image holds.
package reach

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Target is something to connect to.
type Target struct {
	Protocol string // "tcp" or "udp"
	Address  netip.AddrPort
}

// ParseTarget reads what Target.String writes.
func ParseTarget(s string) (Target, error) {
	protocol, address, found := strings.Cut(s, "/")
	if !found || (protocol != "tcp" && protocol != "udp") {
		return Target{}, fmt.Errorf("target %q: want tcp/ADDRESS:PORT or udp/ADDRESS:PORT", s)
	}
	parsed, err := netip.ParseAddrPort(address)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %w", s, err)
	}
	return Target{Protocol: protocol, Address: parsed}, nil
}

// String is "tcp/10.0.0.1:80" or "tcp/[2001:db8::1]:80".
func (t Target) String() string { return t.Protocol + "/" + t.Address.String() }

// MarshalText makes a Target a string in JSON.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (t *Target) UnmarshalText(text []byte) error {
	parsed, err := ParseTarget(string(text))
	*t = parsed
	return err
}

// Outcome is what became of a connection.
type Outcome string

// The outcomes. A packet filter that drops shows as TimedOut; everything else but Open is a fault of the
// network or of the test.
const (
	Open     Outcome = "open"      // the server answered
	TimedOut Outcome = "timed out" // there was no answer
	Refused  Outcome = "refused"   // there is no listener, or a filter rejects
	Failed   Outcome = "failed"    // anything else, as no route
)

// A Result is one attempt to reach a target.
type Result struct {
	Target Target `json:"target"`
	// Start of the attempt.
	Start   time.Time `json:"start"`
	Outcome Outcome   `json:"outcome"`
	// Took is the time until the answer, in nanoseconds.
	Took time.Duration `json:"took,omitempty"`
	// Answered is the number of the SYN or of the datagram that was answered; 1 is the first.
	Answered int `json:"answered,omitempty"`
	// Server is the host name of who answered.
	Server string `json:"server,omitempty"`
	// Error is what the kernel said where the outcome is not Open.
	Error string `json:"error,omitempty"`
	// Held says that the attempt used a connection that was open before.
	Held bool `json:"held,omitempty"`
}
