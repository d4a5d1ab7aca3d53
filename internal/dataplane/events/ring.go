package events

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Read calls handle for every event of the ring until the context is done, which is no error. There is one
// reader at a time; what handle does not take fast enough is lost and counted.
func Read(ctx context.Context, ring *ebpf.Map, handle func(Event)) error {
	r, err := ringbuf.NewReader(ring)
	if err != nil {
		return fmt.Errorf("open the ring of events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = r.Close() })()
	defer func() { _ = r.Close() }()

	var record ringbuf.Record
	for {
		switch err := r.ReadInto(&record); {
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("read the ring of events: %w", err)
		}
		e, err := decode(record.RawSample)
		if err != nil {
			return err
		}
		handle(e)
	}
}
