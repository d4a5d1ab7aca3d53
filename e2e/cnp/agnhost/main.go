// Command agnhost is /bin/bash in the image of the suite's pods: the suite runs its servers as `bash -c "/agnhost ..."`. A server
// that the kernel cannot run, because it has no SCTP sockets, does nothing: its container must not fail, or the suite waits for it.
package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 || os.Args[1] != "-c" {
		fmt.Fprintf(os.Stderr, "%q: only -c COMMAND is supported\n", os.Args[1:])
		os.Exit(2)
	}
	argv := strings.Fields(os.Args[2])
	if argv[len(argv)-1] == "porter" && servesSCTP() && !hasSCTP() {
		argv = []string{argv[0], "pause"}
	}
	err := unix.Exec(argv[0], argv, os.Environ())
	fmt.Fprintf(os.Stderr, "%s: %v\n", argv[0], err)
	os.Exit(1)
}

func servesSCTP() bool {
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "SERVE_SCTP_PORT_") {
			return true
		}
	}
	return false
}

func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err == nil
}
