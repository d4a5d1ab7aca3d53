// Command agnhost stands before Kubernetes' agnhost in the image of the suite's pods, as /agnhost and as /bin/bash: the suite runs its
// servers as `bash -c "/agnhost ..."`. Where the kernel has no SCTP sockets, it serves SCTP and connects by SCTP itself. Everything else
// is left to Kubernetes' program.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// original is where Kubernetes' program is in the image.
const original = "/agnhost-kubernetes"

func main() {
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == "bash" {
		if len(args) != 2 || args[0] != "-c" {
			fail(2, fmt.Errorf("%q: only -c COMMAND is supported", args))
		}
		args = strings.Fields(args[1])[1:]
	}
	if len(args) > 0 && !hasSCTP() {
		switch ports := sctpPorts(os.Environ()); {
		case args[0] == "porter" && len(ports) > 0:
			fail(1, serve(ports))
		case args[0] == "connect":
			if target, timeout, ok := sctpTarget(args[1:]); ok {
				connectTo(target, timeout)
			}
		}
	}
	err := unix.Exec(original, append([]string{original}, args...), os.Environ())
	fail(1, fmt.Errorf("%s: %w", original, err))
}

func fail(code int, err error) {
	fmt.Fprintf(os.Stderr, "%v\n", err)
	os.Exit(code)
}

func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}

// sctpPorts returns the ports that the environment asks a porter to serve.
func sctpPorts(environ []string) map[uint16]bool {
	ports := map[uint16]bool{}
	for _, v := range environ {
		if rest, ok := strings.CutPrefix(v, "SERVE_SCTP_PORT_"); ok {
			port, _, _ := strings.Cut(rest, "=")
			if n, err := strconv.ParseUint(port, 10, 16); err == nil {
				ports[uint16(n)] = true
			}
		}
	}
	return ports
}

// sctpTarget reads the arguments of agnhost's connect, if they ask for SCTP.
func sctpTarget(args []string) (target string, timeout time.Duration, ok bool) {
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	protocol := flags.String("protocol", "tcp", "")
	flags.DurationVar(&timeout, "timeout", 0, "")
	if err := flags.Parse(args); err != nil || *protocol != "sctp" || flags.NArg() != 1 {
		return "", 0, false
	}
	return flags.Arg(0), timeout, true
}

// connectTo prints what agnhost prints, and ends the process.
func connectTo(target string, timeout time.Duration) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		fail(1, fmt.Errorf("DNS: %w", err))
	}
	address := net.ParseIP(host)
	number, err := strconv.ParseUint(port, 10, 16)
	if address == nil || err != nil {
		fail(1, fmt.Errorf("DNS: %q is not an address with a port", target))
	}
	c, err := dialRaw(address)
	if err != nil {
		fail(1, fmt.Errorf("OTHER: %w", err))
	}
	if timeout > 0 {
		err = c.SetDeadline(time.Now().Add(timeout))
	}
	if err == nil {
		err = connect(c, uint16(number))
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		fail(1, errors.New("TIMEOUT"))
	case err != nil:
		fail(1, fmt.Errorf("OTHER: %w", err))
	}
	os.Exit(0)
}
