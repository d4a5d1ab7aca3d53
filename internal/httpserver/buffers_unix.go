//go:build unix

package httpserver

import "golang.org/x/sys/unix"

// Sizes of a connection's socket buffers, which are the kernel's memory and count as the container's. The kernel doubles them. Without them a client
// that reads slowly makes the kernel hold megabytes.
const (
	receiveBuffer = 16 << 10
	sendBuffer    = 32 << 10
)

// limitBuffers sets the sizes of a socket's buffers.
func limitBuffers(fd uintptr) error {
	if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
		return err
	}
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
}
