package npbackend

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// enforceRequest is EnforceNpRequest and, with the first two fields only, DeleteNpRequest. The plugin's own enforcing mode is left out: the agent's
// applies.
type enforceRequest struct {
	name, namespace string
	interfaces      int // of the pod
}

// reply is EnforceNpReply and DeleteNpReply.
type reply struct{ success bool }

// codec encodes the messages as Protocol Buffers: a generated package would be larger than the four messages are worth.
type codec struct{}

// Name is that of the encoding on the wire.
func (codec) Name() string { return "proto" }

// Marshal encodes a reply.
func (codec) Marshal(v any) ([]byte, error) {
	r, ok := v.(*reply)
	if !ok {
		return nil, fmt.Errorf("%T is not a reply", v)
	}
	if !r.success {
		return nil, nil
	}
	return protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1), nil
}

// Unmarshal decodes a request. It skips unknown fields.
func (codec) Unmarshal(data []byte, v any) error {
	r, ok := v.(*enforceRequest)
	if !ok {
		return fmt.Errorf("%T is not a request", v)
	}
	texts := map[protowire.Number]*string{1: &r.name, 2: &r.namespace}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		switch text := texts[number]; {
		case text != nil && kind == protowire.BytesType:
			var value []byte
			if value, n = protowire.ConsumeBytes(data); n >= 0 {
				*text = string(value)
			}
		case number == 4 && kind == protowire.VarintType:
			var value uint64
			if value, n = protowire.ConsumeVarint(data); n >= 0 {
				r.interfaces = int(min(value, maxInterfaces))
			}
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
	}
	if r.name == "" || r.namespace == "" {
		return errors.New("the request names no pod")
	}
	return nil
}
