package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

const (
	// patience is how long an allowed connection may take, silence how long a refused one is waited for. What is silent once is asked again.
	patience = 3 * time.Second
	silence  = 400 * time.Millisecond
	// atOnce is how many connections are tried at the same time; each takes a thread.
	atOnce = 128
)

// serve answers on these ports of a host until the context ends: TCP and UDP; SCTP is left out where the kernel has none.
func (h *host) serve(ctx context.Context, ports []model.Port) error {
	return h.do(func() error {
		for _, p := range ports {
			if p.Number == 0 {
				p.Number = otherPort
			}
			address := fmt.Sprintf(":%d", p.Number)
			switch p.Protocol {
			case policy.TCP:
				l, err := net.Listen("tcp", address)
				if err != nil {
					return err
				}
				context.AfterFunc(ctx, func() { _ = l.Close() })
				go answerTCP(l)
			case policy.UDP:
				// of one socket for all addresses the answers would come from the first
				for _, a := range h.addresses {
					c, err := net.ListenPacket("udp", netip.AddrPortFrom(a, p.Number).String())
					if err != nil {
						return err
					}
					context.AfterFunc(ctx, func() { _ = c.Close() })
					go answerUDP(c, h.zone)
				}
			default: // nothing listens, and a probe shows only that the packet arrives
			}
		}
		return nil
	})
}

func answerTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		_, _ = io.WriteString(c, "kidoban\n")
		_ = c.Close()
	}
}

// answerUDP answers questions for the names of a zone, and everything else with a word.
func answerUDP(c net.PacketConn, zone map[string][]netip.Addr) {
	buf := make([]byte, 512)
	for {
		size, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			answer := answerQuestion(buf[:size], zone)
			if answer == nil {
				answer = []byte("kidoban\n")
			}
			_, _ = c.WriteTo(answer, from)
		}
	}
}

// A probe is one connection.
type probe struct {
	from     *host
	source   netip.Addr
	to       netip.AddrPort
	protocol policy.Protocol
	answered bool
	err      error // of the local kernel: the probe says nothing
}

// run all probes. wanted says of each whether it should be answered, which decides how long it is waited for; a silence is
// asked about twice.
func run(ctx context.Context, probes []*probe, wanted func(*probe) bool, progress func(done int)) error {
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for _, p := range probes {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			wg.Wait()
			return ctx.Err()
		}
		wg.Go(func() {
			defer func() { <-slots }()
			within := silence
			if wanted(p) {
				within = patience
			}
			p.try(ctx, within)
			mu.Lock()
			defer mu.Unlock()
			done++
			progress(done)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, p := range probes {
		if p.err != nil {
			return fmt.Errorf("connect %s to %s: %w", p.source, p.to, p.err)
		}
	}
	return nil
}

func (p *probe) try(ctx context.Context, within time.Duration) {
	err := p.from.do(func() error {
		network, local := "tcp", net.Addr(&net.TCPAddr{IP: p.source.AsSlice()})
		if p.protocol == policy.UDP {
			network, local = "udp", &net.UDPAddr{IP: p.source.AsSlice()}
		}
		dialer := net.Dialer{LocalAddr: local, Timeout: within, FallbackDelay: -1}
		c, err := dialer.DialContext(ctx, network, p.to.String())
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return exchange(c, p.protocol, time.Now().Add(within))
	})
	var timeout net.Error
	switch {
	case err == nil:
		p.answered = true
	case errors.As(err, &timeout) && timeout.Timeout():
	case ctx.Err() != nil:
	default:
		p.err = err
	}
}

// exchange waits for the server's word. A datagram is sent several times: a lost one is no verdict.
func exchange(c net.Conn, protocol policy.Protocol, deadline time.Time) error {
	buf := make([]byte, 64)
	if protocol != policy.UDP {
		_ = c.SetDeadline(deadline)
		_, err := c.Read(buf)
		return err
	}
	for {
		if _, err := c.Write([]byte("?")); err != nil {
			return err
		}
		next := time.Now().Add(silence / 4)
		last := !next.Before(deadline)
		_ = c.SetReadDeadline(next)
		_, err := c.Read(buf)
		if err == nil || last {
			return err
		}
	}
}
