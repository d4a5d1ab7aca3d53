package hubble

import (
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// mask leaves out of a flow what a client does not want: a tree of the names of fields.
type mask struct {
	children map[protoreflect.Name]*mask
	// all keeps the field with everything that it contains.
	all bool
}

// newMask reads a field mask; nil keeps all fields. Clients also ask for fields that later versions of the API have: no flow has them.
func newMask(m *fieldmaskpb.FieldMask) *mask {
	if len(m.GetPaths()) == 0 {
		return nil
	}
	root := &mask{}
	for _, path := range m.GetPaths() {
		at := root
		for name := range strings.SplitSeq(path, ".") {
			if at.children == nil {
				at.children = map[protoreflect.Name]*mask{}
			}
			next := at.children[protoreflect.Name(name)]
			if next == nil {
				next = &mask{}
				at.children[protoreflect.Name(name)] = next
			}
			at = next
		}
		at.all = true
	}
	return root
}

// apply returns a flow with the fields of the mask.
func (m *mask) apply(f *flowpb.Flow) *flowpb.Flow {
	if m != nil {
		m.clear(f.ProtoReflect())
	}
	return f
}

// clear removes what is not in the mask.
func (m *mask) clear(msg protoreflect.Message) {
	if m.all {
		return
	}
	msg.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		child, ok := m.children[fd.Name()]
		switch {
		case !ok:
			msg.Clear(fd)
		case fd.Message() != nil && !fd.IsList() && !fd.IsMap():
			child.clear(v.Message())
		}
		return true
	})
}
