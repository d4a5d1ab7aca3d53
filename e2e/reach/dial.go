package reach

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Resend is how often a UDP request is repeated until there is an answer: a lost datagram is no verdict.
const Resend = 250 * time.Millisecond

// Dial connects to a target anew and waits until its server has named itself.
func Dial(ctx context.Context, target Target, timeout time.Duration) Result {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var server string
	var err error
	answered := 0
	if target.Protocol == "udp" {
		server, answered, err = dialUDP(ctx, target)
	} else {
		server, answered, err = dialTCP(ctx, target)
	}
	r := newResult(target, start, server, err)
	r.Answered = answered
	return r
}

// DialAll dials the targets at the same time. The results are in the order of the targets.
func DialAll(ctx context.Context, targets []Target, timeout time.Duration) []Result {
	results := make([]Result, len(targets))
	var wg sync.WaitGroup
	for i, target := range targets {
		wg.Go(func() { results[i] = Dial(ctx, target, timeout) })
	}
	wg.Wait()
	return results
}

// dialTCP returns also which SYN was answered.
func dialTCP(ctx context.Context, target Target) (server string, answered int, err error) {
	conn, err := open(ctx, target)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	resent, err := retransmissions(conn)
	if err != nil {
		return "", 0, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(line), resent + 1, err
}

// retransmissions is how many packets the kernel has sent again on a TCP connection.
func retransmissions(conn net.Conn) (int, error) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return 0, errors.New("no TCP connection")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info syscall.TCPInfo
	size := uint32(syscall.SizeofTCPInfo)
	var failed syscall.Errno
	err = raw.Control(func(fd uintptr) {
		_, _, failed = syscall.Syscall6(syscall.SYS_GETSOCKOPT, fd, syscall.IPPROTO_TCP, syscall.TCP_INFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	})
	if err == nil && failed != 0 {
		err = failed
	}
	return int(info.Total_retrans), err
}

// dialUDP numbers its requests, and returns which of them was answered.
func dialUDP(ctx context.Context, target Target) (server string, answered int, err error) {
	conn, err := open(ctx, target)
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	buffer := make([]byte, 1024)
	for i := 1; ; i++ {
		if _, err := fmt.Fprintf(conn, "who %d\n", i); err != nil {
			return "", 0, err
		}
		next := time.Now().Add(Resend)
		last := !next.Before(deadline)
		if last {
			next = deadline
		}
		if err := conn.SetReadDeadline(next); err != nil {
			return "", 0, err
		}
		n, err := conn.Read(buffer)
		if err == nil {
			server, number, _ := strings.Cut(strings.TrimSpace(string(buffer[:n])), " ")
			answered, _ := strconv.Atoi(number)
			return server, answered, nil
		}
		if last || !errors.Is(err, os.ErrDeadlineExceeded) {
			return "", 0, err
		}
	}
}

// open connects, with the context's deadline for all that follows on the connection.
func open(ctx context.Context, target Target) (net.Conn, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, target.Protocol, target.Address.String())
	// A router whose neighbour has not answered yet says so; kidoban never answers, it drops. The time allowed is the same.
	for errors.Is(err, syscall.EHOSTUNREACH) && ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(Resend):
			conn, err = dialer.DialContext(ctx, target.Protocol, target.Address.String())
		}
	}
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

func newResult(target Target, start time.Time, server string, err error) Result {
	r := Result{Target: target, Start: start, Took: time.Since(start), Outcome: Open, Server: server}
	if err == nil {
		return r
	}
	r.Error = err.Error()
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		r.Outcome = TimedOut
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		r.Outcome = Refused
	default:
		r.Outcome = Failed
	}
	return r
}
