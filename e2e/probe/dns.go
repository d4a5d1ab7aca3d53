package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/kidoban/kidoban/e2e/reach"
)

// zone are addresses by names in lower case, with their last dot.
type zone map[string][]netip.Addr

// ttl of the answers, in seconds.
const ttl = 30

// serveDNS answers questions over UDP until the context is done.
func serveDNS(ctx context.Context, args []string, stdout io.Writer) error {
	flags := newFlags("dns")
	port := flags.Int("port", 53, "UDP port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	z := zone{}
	for _, arg := range flags.Args() {
		name, addresses, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=ADDRESS or NAME=ADDRESS,ADDRESS", arg)
		}
		for text := range strings.SplitSeq(addresses, ",") {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return err
			}
			z[strings.ToLower(name)+"."] = append(z[strings.ToLower(name)+"."], addr)
		}
	}
	conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", *port))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	fmt.Fprintln(stdout, "ready")
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if answer, err := z.answer(buffer[:n]); err == nil {
			_, _ = conn.WriteTo(answer, from) // the client asks again
		}
	}
}

// answer returns the response to a message with one question.
func (z zone) answer(message []byte) ([]byte, error) {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	addresses, known := z[strings.ToLower(q.Name.String())]
	if !known {
		out.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addresses {
		rh := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: ttl}
		switch {
		case q.Type == dnsmessage.TypeA && a.Is4():
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: rh, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			out.Answers = append(out.Answers, dnsmessage.Resource{Header: rh, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return out.Pack()
}

// resolve asks a DNS server for a name, and connects to its first address at once.
func resolve(ctx context.Context, args []string, stdout io.Writer) error {
	flags := newFlags("resolve")
	timeout := flags.Duration("timeout", time.Second, "for the answer, and for the connection")
	server := flags.String("server", "", "address and port of the DNS server")
	network := flags.String("network", "ip4", "ip4 or ip6")
	tcp := flags.Bool("tcp", false, "ask over TCP")
	if err := flags.Parse(args); err != nil {
		return err
	}
	name, port, err := net.SplitHostPort(flags.Arg(0))
	if err != nil {
		return err
	}
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		if *tcp {
			network = "tcp"
		}
		var d net.Dialer
		return d.DialContext(ctx, network, *server)
	}}
	asking, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	addresses, err := resolver.LookupNetIP(asking, *network, name+".")
	if err != nil {
		return err
	}
	target, err := reach.ParseTarget("tcp/" + net.JoinHostPort(addresses[0].Unmap().String(), port))
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(reach.Dial(ctx, target, *timeout))
}
