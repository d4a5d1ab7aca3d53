package main

import (
	"fmt"
	"net"
)

const protocolSCTP = 132

// rawConn is a raw socket that is connected to one address. Its packets begin with the SCTP header.
type rawConn struct{ *net.IPConn }

// Read differs from IPConn's in that it leaves out the header of IPv4.
func (c rawConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFrom(b)
	return n, err
}

func dialRaw(address net.IP) (rawConn, error) {
	c, err := net.DialIP(network(address), nil, &net.IPAddr{IP: address})
	return rawConn{c}, err
}

func network(address net.IP) string {
	if address.To4() != nil {
		return fmt.Sprint("ip4:", protocolSCTP)
	}
	return fmt.Sprint("ip6:", protocolSCTP)
}

// serve answers packets to the ports. Each address has a socket of its own, so that the answer comes from the address that was asked.
func serve(ports map[uint16]bool) error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	failed := make(chan error)
	for _, a := range addresses {
		prefix, ok := a.(*net.IPNet)
		if !ok || prefix.IP.IsLinkLocalUnicast() {
			continue
		}
		c, err := net.ListenIP(network(prefix.IP), &net.IPAddr{IP: prefix.IP})
		if err != nil {
			return err
		}
		go func() { failed <- serveOn(c, ports) }()
	}
	return <-failed
}

func serveOn(c *net.IPConn, ports map[uint16]bool) error {
	buffer := make([]byte, 1<<16)
	for {
		n, client, err := c.ReadFrom(buffer)
		if err != nil {
			return err
		}
		p := parse(buffer[:n])
		if p == nil {
			continue
		}
		if reply := answer(ports, p); reply != nil {
			if _, err := c.WriteTo(reply.marshal(), client); err != nil {
				fmt.Printf("answer %s: %v\n", client, err) // the client tries again
			}
		}
	}
}
