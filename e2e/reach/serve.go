package reach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// A Server answers on a set of ports, over both families: each TCP connection gets the server's name in a line and then
// an echo of what it sends, each UDP datagram gets the name. On a host with several addresses the answer to a datagram
// may leave from another one than was asked.
type Server struct {
	Name     string
	TCP, UDP []uint16
}

// Serve listens on all ports, calls ready, and answers until ctx ends. Connections that are open then are cut.
func (s *Server) Serve(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // runs first: what wg waits for ends by it
	for _, port := range s.TCP {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		wg.Go(func() { s.acceptTCP(ctx, listener) })
	}
	for _, port := range s.UDP {
		conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		wg.Go(func() { s.answerUDP(conn) })
	}
	ready()
	<-ctx.Done()
	return nil
}

func (s *Server) acceptTCP(ctx context.Context, listener net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client was gone again
		}
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		wg.Go(func() {
			defer stop()
			defer conn.Close()
			if _, err := io.WriteString(conn, s.Name+"\n"); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		})
	}
}

func (s *Server) answerUDP(conn net.PacketConn) {
	buffer := make([]byte, 1024)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, number, _ := strings.Cut(strings.TrimSpace(string(buffer[:n])), " ")
			_, _ = conn.WriteTo([]byte(strings.TrimSpace(s.Name+" "+number)), from)
		}
	}
}
