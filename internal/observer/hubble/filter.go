package hubble

import (
	"fmt"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// predicate reports whether a view of a flow passes one field of a filter.
type predicate func(*view) bool

// filter is a FlowFilter: all of its fields must match.
type filter struct {
	predicates []predicate
	// verdicts and events that the filter asks for; empty: any.
	verdicts []flowpb.Verdict
	events   []*flowpb.EventTypeFilter
}

// filters decide which flows a client receives.
type filters struct{ allow, deny []*filter }

// fieldsOfNewerClients are fields of FlowFilter that later versions of the API added to ours, by number.
var fieldsOfNewerClients = map[protowire.Number]string{39: "ip_trace_id", 40: "encrypted"}

// compile returns the filters of a request, or InvalidArgument with the name of the field that cannot be honoured: a field that is
// ignored would show more than was asked for.
func compile(allow, deny []*flowpb.FlowFilter) (*filters, error) {
	var out filters
	for _, list := range []struct {
		name    string
		filters []*flowpb.FlowFilter
		to      *[]*filter
	}{{"whitelist", allow, &out.allow}, {"blacklist", deny, &out.deny}} {
		for i, ff := range list.filters {
			f, err := newFilter(ff, list.filters)
			if err != nil {
				return nil, status.Errorf(codes.InvalidArgument, "%s[%d].%s", list.name, i, err)
			}
			*list.to = append(*list.to, f)
		}
	}
	return &out, nil
}

// newFilter reads a filter, which is in a list with others.
func newFilter(ff *flowpb.FlowFilter, list []*flowpb.FlowFilter) (*filter, error) {
	if err := knownFields(ff); err != nil {
		return nil, err
	}
	f := &filter{verdicts: ff.GetVerdict(), events: ff.GetEventType()}
	var failed error
	ff.ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		name := string(fd.Name())
		read, ok := fields[name]
		if !ok {
			failed = fmt.Errorf("%s: kidoban does not record this, so it cannot be a filter", name)
			return false
		}
		p, err := read(ff, list)
		if err != nil {
			failed = fmt.Errorf("%s: %w", name, err)
			return false
		}
		f.predicates = append(f.predicates, p)
		return true
	})
	return f, failed
}

// knownFields returns an error that names a field of a later version of the API, if the filter has one.
func knownFields(ff proto.Message) error {
	unknown := ff.ProtoReflect().GetUnknown()
	if len(unknown) == 0 {
		return nil
	}
	number, _, _ := protowire.ConsumeTag(unknown)
	if name, ok := fieldsOfNewerClients[number]; ok {
		return fmt.Errorf("%s: kidoban does not record this, so it cannot be a filter", name)
	}
	return fmt.Errorf("field %d: this version of kidoban does not have this field of Hubble's API", number)
}

// show returns the view of a flow that passes the filters, with a verdict and a type of event that they ask for; nil: none passes.
func (f *filters) show(vs []view) *flowpb.Flow {
	for i := range vs {
		v := &vs[i]
		if !f.denies(v) && f.allows(v) {
			return v.flow
		}
	}
	return nil
}

func (f *filters) denies(v *view) bool {
	for _, deny := range f.deny {
		if deny.matches(v) {
			return true
		}
	}
	return false
}

// allows reports whether a filter matches, and makes the view show what that filter asks for.
func (f *filters) allows(v *view) bool {
	if len(f.allow) == 0 {
		return true
	}
	for _, allow := range f.allow {
		if allow.matches(v) {
			v.show(verdictFor(v, allow.verdicts), eventFor(v, allow.events))
			return true
		}
	}
	return false
}

func (f *filter) matches(v *view) bool {
	for _, p := range f.predicates {
		if !p(v) {
			return false
		}
	}
	return true
}

// verdictFor returns the first verdict of a view that is asked for.
func verdictFor(v *view, asked []flowpb.Verdict) flowpb.Verdict {
	for _, have := range v.verdicts {
		for _, a := range asked {
			if have == a {
				return have
			}
		}
	}
	return v.verdicts[0]
}

// eventFor returns the first type of event of a view that is asked for.
func eventFor(v *view, asked []*flowpb.EventTypeFilter) *flowpb.CiliumEventType {
	for _, have := range v.events {
		for _, a := range asked {
			if isEvent(have, a) {
				return have
			}
		}
	}
	return v.events[0]
}

func isEvent(have *flowpb.CiliumEventType, asked *flowpb.EventTypeFilter) bool {
	return (asked.GetType() == 0 || asked.GetType() == have.GetType()) &&
		(!asked.GetMatchSubType() || asked.GetSubType() == have.GetSubType())
}
