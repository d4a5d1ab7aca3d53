package sink

import "context"

// CallOptions say how lines are sent by a protocol of the caller's.
type CallOptions struct {
	// Name of the sink in metrics and logs.
	Name string
	// Call sends some lines and returns how many of them the receiver left out. It is called with the same lines again after an error that is
	// not made by Refused.
	Call func(ctx context.Context, lines [][]byte) (refused int, err error)
	// Close is called once, after the last call.
	Close func() error
}

type call struct{ opts CallOptions }

// Call sends lines by a function.
func Call(opts CallOptions) Sink { return call{opts} }

// Refused marks an error after which the same lines are not sent again.
func Refused(err error) error { return refusedError{err} }

func (c call) Name() string   { return c.opts.Name }
func (c call) limits() limits { return httpLimits }
func (c call) close() error   { return c.opts.Close() }

func (c call) deliver(ctx context.Context, lines []line) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	texts := make([][]byte, len(lines))
	for i, l := range lines {
		texts[i] = l.text
	}
	refused, err := c.opts.Call(ctx, texts)
	return result{refused: min(refused, len(lines))}, err
}
