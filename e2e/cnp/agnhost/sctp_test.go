package main

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// serveOver answers the packets that arrive on one end of a pipe, each changed by change.
func serveOver(t *testing.T, c net.Conn, change func([]byte) []byte) {
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := c.Read(buffer)
			if err != nil {
				return
			}
			p := parse(buffer[:n])
			if p == nil {
				t.Errorf("%x is not a packet", buffer[:n])
				return
			}
			if reply := answer(map[uint16]bool{9003: true}, p); reply != nil {
				if b := change(reply.marshal()); b != nil {
					_, _ = c.Write(b) // fails after the client has ended
				}
			}
		}
	}()
}

func TestHandshake(t *testing.T) {
	same := func(b []byte) []byte { return b }
	for _, tc := range []struct {
		name   string
		port   uint16
		change func([]byte) []byte
		want   error
	}{
		{"port that is served", 9003, same, nil},
		{"another port", 9005, same, os.ErrDeadlineExceeded},
		{"cookie that is lost", 9003, func(b []byte) []byte {
			if b[12] == chunkCookieAck {
				return nil
			}
			return b
		}, os.ErrDeadlineExceeded},
		{"wrong checksum", 9003, func(b []byte) []byte { b[8]++; return b }, os.ErrDeadlineExceeded},
		{"wrong verification tag", 9003, func(b []byte) []byte {
			p := parse(b)
			p.tag++
			return p.marshal()
		}, os.ErrDeadlineExceeded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer func() { _, _ = client.Close(), server.Close() }()
			serveOver(t, server, tc.change)
			if tc.want == nil {
				_ = client.SetDeadline(time.Now().Add(time.Minute))
			} else {
				_ = client.SetDeadline(time.Now().Add(100 * time.Millisecond))
			}
			if err := connect(client, tc.port); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestParseRejectsWhatIsCut(t *testing.T) {
	p := packet{source: 1, destination: 2, tag: 3, chunk: chunkInit, value: initValue(4)}
	b := p.marshal()
	for n := range b {
		if parse(b[:n]) != nil {
			t.Errorf("%d of %d bytes are taken for a packet", n, len(b))
		}
	}
	if got := parse(b); got == nil || got.tag != 3 || got.chunk != chunkInit || len(got.value) != initLength {
		t.Errorf("got %+v", got)
	}
}

func TestArguments(t *testing.T) {
	target, timeout, ok := sctpTarget([]string{"--timeout=3s", "--protocol=sctp", "[fd00::1]:9003"})
	if target != "[fd00::1]:9003" || timeout != 3*time.Second || !ok {
		t.Errorf("got %q, %v, %v", target, timeout, ok)
	}
	if _, _, ok := sctpTarget([]string{"--protocol=udp", "10.0.0.1:53"}); ok {
		t.Error("UDP is taken for SCTP")
	}
	if got := sctpPorts([]string{"A=b", "SERVE_SCTP_PORT_9003=foo", "SERVE_TCP_PORT_80=foo"}); len(got) != 1 || !got[9003] {
		t.Errorf("got ports %v", got)
	}
}
