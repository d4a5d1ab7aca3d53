package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// namesLast is longer than any lab.
const namesLast = time.Hour

// trusted is the lab's resolver, or nil.
func (l *lab) trusted() []netip.AddrPort {
	if l.resolver == nil {
		return nil
	}
	var out []netip.AddrPort
	for _, a := range policy.PodAddresses(&l.resolver.Pod) {
		out = append(out, netip.AddrPortFrom(a, dnsPort.Number))
	}
	return out
}

// resolve asks for every name from every pod that may ask, as applications do before they connect.
func (l *lab) resolve(ctx context.Context) error {
	if l.resolver == nil {
		return nil
	}
	e := model.NewEvaluator(l.cluster)
	for p, h := range l.pods {
		for _, f := range questions(e, p, l.resolver) {
			err := h.do(func() error {
				for name := range l.names {
					for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
						if err := askName(ctx, f, name, kind); err != nil {
							return fmt.Errorf("pod %s: ask %s for %s: %w", p.Key(), f.Destination, name, err)
						}
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// askName asks a question until it is answered.
func askName(ctx context.Context, f policy.Flow, name string, kind dnsmessage.Type) error {
	question, err := questionOf(name, kind)
	if err != nil {
		return err
	}
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: f.Source.AsSlice()}}
	c, err := dialer.DialContext(ctx, "udp", netip.AddrPortFrom(f.Destination, f.Port).String())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	buf := make([]byte, 512)
	for deadline := time.Now().Add(patience); ; {
		if _, err := c.Write(question); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(silence))
		_, err := c.Read(buf)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
	}
}

func questionOf(name string, kind dnsmessage.Type) ([]byte, error) {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 1, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// answerQuestion answers a question from a zone. It returns nil for what is no question.
func answerQuestion(packet []byte, zone map[string][]netip.Addr) []byte {
	var m dnsmessage.Message
	if zone == nil || m.Unpack(packet) != nil || m.Response || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	addrs, ok := zone[strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addrs {
		header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: dnsmessage.ClassINET, TTL: 60}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}
