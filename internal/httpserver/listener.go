package httpserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Limits of the connections to one server. The zero value of a field means its default.
type Limits struct {
	// Connections in total. Default 256: from fewer sources than that, none loses its only connection.
	Connections int
	// PerSource is the number of connections of one IPv4 address, or of one IPv6 /64. Default 16.
	PerSource int
	// Rate is the number of new connections per second of one source in the long run. As many as PerSource may come at once. Default 20.
	Rate int
}

const (
	defaultConnections = 256
	defaultPerSource   = 16
	defaultRate        = 20
	// mostPaces limits how many sources are remembered for their pace. An entry that is not used for a second or two says nothing.
	mostPaces = 4096
)

// Listen listens on a TCP address. A connection beyond the limits displaces an older one: of its own source if that has its maximum, else of the source
// that has the most. So a source with few connections, such as a kubelet or Prometheus, is served however many others there are. A source that connects
// faster than its rate is reset at once: that costs least, and leaves the connections of others time to be served.
func Listen(address string, limits Limits) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		if err := raw.Control(func(fd uintptr) { failed = limitBuffers(fd) }); err != nil { // accepted connections inherit them
			return err
		}
		return failed
	}}
	l, err := config.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen on %s: not a TCP listener: %T", address, l)
	}
	if limits.Connections == 0 {
		limits.Connections = defaultConnections
	}
	if limits.PerSource == 0 {
		limits.PerSource = defaultPerSource
	}
	if limits.Rate == 0 {
		limits.Rate = defaultRate
	}
	return &listener{TCPListener: tcp, limits: limits, sources: map[netip.Prefix][]*conn{}, paces: map[netip.Prefix]pace{}}, nil
}

type listener struct {
	*net.TCPListener
	limits Limits

	mu       sync.Mutex               // guards what follows
	sources  map[netip.Prefix][]*conn // that may be served, the oldest first
	paces    map[netip.Prefix]pace
	serving  int    // connections in sources
	open     int    // those, and the displaced ones that the server has not closed yet
	accepted uint64 // connections so far: the order between sources
}

// conn is an accepted connection. The server closes it in any case, also after it was displaced.
type conn struct {
	*net.TCPConn
	listener *listener
	source   netip.Prefix
	number   uint64
	closed   sync.Once
}

// pace is a token bucket: how many more connections a source may make at a time.
type pace struct {
	at     time.Time
	tokens float64
}

// Accept waits for the next connection that can be served.
func (l *listener) Accept() (net.Conn, error) {
	for {
		tcp, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if c := l.admit(tcp); c != nil {
			return c, nil
		}
		reset(tcp)
	}
}

// admit registers a connection and displaces another one where there are too many. It returns nil if the source connects too fast, or if the server is so
// far behind with closing displaced connections that this one would exceed four times the limit.
func (l *listener) admit(tcp *net.TCPConn) *conn {
	source := sourceOf(tcp.RemoteAddr())
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.inPace(source, time.Now()) || l.open >= 4*l.limits.Connections {
		return nil
	}
	l.accepted++
	c := &conn{TCPConn: tcp, listener: l, source: source, number: l.accepted}
	switch {
	case len(l.sources[c.source]) >= l.limits.PerSource:
		l.displace(c.source)
	case l.serving >= l.limits.Connections:
		l.displace(l.greediest())
	}
	l.sources[c.source] = append(l.sources[c.source], c)
	l.serving++
	l.open++
	return c
}

// inPace reports whether a source may connect once more.
func (l *listener) inPace(source netip.Prefix, now time.Time) bool {
	most := float64(l.limits.PerSource)
	p, ok := l.paces[source]
	if ok {
		p.tokens = min(most, p.tokens+now.Sub(p.at).Seconds()*float64(l.limits.Rate))
	} else {
		p.tokens = most
		if len(l.paces) >= mostPaces {
			clear(l.paces)
		}
	}
	p.at = now
	may := p.tokens >= 1
	if may {
		p.tokens--
	}
	l.paces[source] = p
	return may
}

// greediest returns the source with the most connections; of several, the one whose oldest connection is the oldest.
func (l *listener) greediest() netip.Prefix {
	var most netip.Prefix
	for source, conns := range l.sources {
		if have := l.sources[most]; len(conns) > len(have) || len(conns) == len(have) && conns[0].number < have[0].number {
			most = source
		}
	}
	return most
}

// displace ends the oldest connection of a source. Its server notices by an error.
func (l *listener) displace(source netip.Prefix) {
	c := l.sources[source][0]
	l.remove(c)
	reset(c.TCPConn)
}

// remove takes a connection out of sources, if it is there.
func (l *listener) remove(c *conn) {
	conns := l.sources[c.source]
	for i := range conns {
		if conns[i] != c {
			continue
		}
		if len(conns) == 1 {
			delete(l.sources, c.source)
		} else {
			l.sources[c.source] = append(conns[:i:i], conns[i+1:]...)
		}
		l.serving--
		return
	}
}

// Close ends the connection. The server calls it when it is done with the connection.
func (c *conn) Close() error {
	c.closed.Do(func() {
		c.listener.mu.Lock()
		defer c.listener.mu.Unlock()
		c.listener.remove(c)
		c.listener.open--
	})
	return c.TCPConn.Close()
}

// reset ends a connection at once: nothing of it waits in the kernel.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// sourceOf returns the source that a connection counts for.
func sourceOf(remote net.Addr) netip.Prefix {
	addr, ok := netip.AddrFromSlice(remote.(*net.TCPAddr).IP)
	if !ok {
		return netip.Prefix{}
	}
	return SourceOf(addr)
}

// SourceOf returns the source that limits count for an address. One machine may use all addresses of an IPv6 /64.
func SourceOf(addr netip.Addr) netip.Prefix {
	bits := 64
	if addr = addr.Unmap(); addr.Is4() {
		bits = 32
	}
	prefix, _ := addr.Prefix(bits) // an address has as many bits
	return prefix
}
