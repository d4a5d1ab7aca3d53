package conntrack

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Deleter deletes entries of conntrack, in the network namespace of the thread that made it.
type Deleter struct{ c *netlink.Conn }

// DeletedAtOnce is how many flows one system call deletes. As many answers must fit in a socket's buffer.
const DeletedAtOnce = 100

// NewDeleter opens a socket, which Close closes.
func NewDeleter() (*Deleter, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	return &Deleter{c}, nil
}

// Close closes the socket.
func (d *Deleter) Close() error { return d.c.Close() }

// Delete makes conntrack forget flows, at most DeletedAtOnce. That a flow is gone already is no error.
func (d *Deleter) Delete(flows []Flow) error {
	var b []byte
	for i := range flows {
		b = appendDelete(b, &flows[i])
	}
	raw, err := d.c.SyscallConn()
	if err != nil {
		return err
	}
	b = appendLast(b)
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		_, failed = unix.Write(int(fd), b)
		return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("ask conntrack to delete flows: %w", err)
	}
	var errs []error
	for range len(flows) + 1 {
		answers, err := d.c.Receive()
		switch {
		case err == nil && len(answers) > 0:
			return errors.Join(errs...)
		case errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("delete flows from conntrack: %w", err)
		case err != nil && !errors.Is(err, fs.ErrNotExist): // it is gone already
			errs = append(errs, fmt.Errorf("delete flows from conntrack: %w", err))
		}
	}
	return errors.Join(errs...)
}
