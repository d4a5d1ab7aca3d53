// Package flowtest makes messages as another version of kidoban sends them, for tests.
package flowtest

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// laterField is the number of a field that no version has.
const laterField = 1000

// AddUnknown adds fields of a later version to a message and to all messages in it.
func AddUnknown(m proto.Message) { add(m.ProtoReflect()) }

func add(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				add(v.List().Get(i).Message())
			}
		default:
			add(v.Message())
		}
		return true
	})
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, laterField, protowire.VarintType), 7)
	unknown = protowire.AppendString(protowire.AppendTag(unknown, laterField+1, protowire.BytesType), "of a later version")
	m.SetUnknown(append(m.GetUnknown(), unknown...))
}
