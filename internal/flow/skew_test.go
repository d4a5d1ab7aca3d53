package flow_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flow/flowtest"
)

// Messages that versions before this one have sent are read as they were meant, and this version writes them in the same way, so that those
// versions read this one's. The recordings never change: a new version gets a new one.
func TestRecordedMessages(t *testing.T) {
	for name, into := range map[string]proto.Message{
		"push-first": &flow.PushRequest{}, "push-previous": &flow.PushRequest{}, "report-previous": &flow.PushRequest{},
		"confirmation-first": &flow.PushResponse{}, "question-previous": &flow.PushResponse{},
	} {
		t.Run(name, func(t *testing.T) {
			wire, text := read(t, name+".bin"), read(t, name+".txtpb")
			if err := proto.Unmarshal(wire, into); err != nil {
				t.Fatal(err)
			}
			want := into.ProtoReflect().New().Interface()
			if err := prototext.Unmarshal(text, want); err != nil { // fails if a field was renamed or removed
				t.Fatal(err)
			}
			if !proto.Equal(into, want) {
				t.Errorf("read as\n%s", prototext.Format(into))
			}
			written, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err != nil || string(written) != string(wire) {
				t.Errorf("it is written as %x, %v", written, err)
			}
			flowtest.AddUnknown(into)
			later, err := proto.Marshal(into)
			if err != nil {
				t.Fatal(err)
			}
			again := want.ProtoReflect().New().Interface()
			if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(later, again); err != nil || !proto.Equal(again, want) {
				t.Errorf("with fields of a later version it is read as\n%s%v", prototext.Format(again), err)
			}
		})
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
