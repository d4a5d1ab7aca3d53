package netnstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Patience is how long a test waits for what must come. What must not come is waited for as long as Silence.
const (
	Patience = 30 * time.Second
	Silence  = 300 * time.Millisecond
)

// Echo answers on a port of "tcp" or "udp", of both families, with what it is sent, until the test ends.
func (n *Namespace) Echo(network string, port uint16) {
	n.t.Helper()
	address := fmt.Sprintf(":%d", port)
	var server io.Closer
	n.Do(func() error {
		switch network {
		case "tcp":
			l, err := net.Listen(network, address)
			if err == nil {
				go echoTCP(l)
			}
			server = l
			return err
		case "udp":
			c, err := net.ListenPacket(network, address)
			if err == nil {
				go echoUDP(c)
			}
			server = c
			return err
		}
		return fmt.Errorf("no server for network %q", network)
	})
	n.t.Cleanup(func() { _ = server.Close() })
}

func echoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		}()
	}
}

func echoUDP(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteTo(buf[:n], from)
		}
	}
}

// Dial opens a connection from the namespace, within Patience. The caller closes it.
func (n *Namespace) Dial(network string, to netip.AddrPort, within time.Duration) (net.Conn, error) {
	var c net.Conn
	var err error
	n.Do(func() error {
		c, err = net.DialTimeout(network, to.String(), within)
		return nil
	})
	return c, err
}

// Ask sends a message to an Echo and waits for the answer.
func (n *Namespace) Ask(network string, to netip.AddrPort, within time.Duration) error {
	return n.AskSize(network, to, 4, within)
}

// AskSize is Ask with a message of so many bytes.
func (n *Namespace) AskSize(network string, to netip.AddrPort, size int, within time.Duration) error {
	c, err := n.Dial(network, to, within)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return Exchange(c, size, within)
}

// Exchange sends size bytes to an Echo over c and waits for them to come back.
func Exchange(c net.Conn, size int, within time.Duration) error {
	if err := c.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("kidoban."), size/8+1)[:size]
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		failed <- err
	}()
	got := make([]byte, size)
	_, errRead := io.ReadFull(c, got)
	if err := <-failed; err != nil {
		return err
	}
	if errRead != nil {
		return errRead
	}
	if !bytes.Equal(got, sent) {
		return errors.New("the answer is not what was sent")
	}
	return nil
}
