package npbackend

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/types"
)

var web = types.NamespacedName{Namespace: "shop", Name: "web"}

// The names that the plugin gives: sha1 of "shop.web" and "shop.web.1".
func TestInterfacesOf(t *testing.T) {
	all := []net.Interface{
		{Index: 1, Name: "lo"}, {Index: 2, Name: "eth0"}, {Index: 3, Name: "eni" + nameSuffix(web, 0)}, {Index: 4, Name: "eni" + nameSuffix(web, 1)},
		{Index: 5, Name: "eni" + nameSuffix(types.NamespacedName{Namespace: "shop", Name: "db"}, 0)},
		{Index: 6, Name: "vlan" + nameSuffix(types.NamespacedName{Namespace: "shop", Name: "bank"}, 0)},
	}
	for _, tc := range []struct {
		pod   string
		count int
		want  []uint32
	}{
		{"web", 1, []uint32{3}}, {"web", 2, []uint32{3, 4}}, {"web", 0, []uint32{3}}, {"bank", 1, []uint32{6}},
		{"web", 3, nil}, {"other", 1, nil},
	} {
		got, err := interfacesOf(types.NamespacedName{Namespace: "shop", Name: tc.pod}, tc.count, all)
		if !reflect.DeepEqual(got, tc.want) || (err == nil) != (tc.want != nil) {
			t.Errorf("%s with %d: %v, %v; want %v", tc.pod, tc.count, got, err, tc.want)
		}
	}
	if got := nameSuffix(types.NamespacedName{Namespace: "default", Name: "a"}, 0); len(got) != 11 {
		t.Errorf("suffix %q", got)
	}
}

func TestUnmarshal(t *testing.T) {
	text := func(b []byte, field protowire.Number, value string) []byte {
		return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
	}
	number := func(b []byte, field protowire.Number, value uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
	}
	pod := text(text(nil, 1, "web"), 2, "shop")
	for name, tc := range map[string]struct {
		data []byte
		want *enforceRequest // nil: an error
	}{
		"the plugin's":      {number(text(pod, 3, "standard"), 4, 2), &enforceRequest{"web", "shop", 2}},
		"of a later plugin": {text(number(pod, 99, 7), 98, "x"), &enforceRequest{"web", "shop", 0}},
		"too many":          {number(pod, 4, 1<<40), &enforceRequest{"web", "shop", maxInterfaces}},
		"no pod":            {nil, nil},
		"no namespace":      {text(nil, 1, "web"), nil},
		"cut off":           {pod[:len(pod)-1], nil},
		"no protobuf":       {[]byte{0xff, 0xff, 0xff}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := &enforceRequest{}
			err := codec{}.Unmarshal(tc.data, got)
			if (err == nil) != (tc.want != nil) || tc.want != nil && *got != *tc.want {
				t.Errorf("%+v, %v; want %+v", got, err, tc.want)
			}
		})
	}
}

// raw sends and receives encoded messages.
type raw struct{}

func (raw) Name() string                    { return "proto" }
func (raw) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte(nil), b...); return nil }
func call(t *testing.T, socket, method string) (success bool) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	request := []byte("\x0a\x03web\x12\x04shop\x1a\x08standard\x20\x01")
	var out []byte
	if err := conn.Invoke(t.Context(), "/rpc.NPBackend/"+method, &request, &out, grpc.ForceCodec(raw{}), grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return string(out) == "\x08\x01"
}

// log collects messages.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, args)
	}, funcr.Options{})
}

func (l *log) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "npa.sock")
	if err := os.WriteFile(socket, nil, 0o600); err != nil { // of a process that has ended
		t.Fatal(err)
	}
	asked := make(chan types.NamespacedName, 1)
	result := errors.New("no")
	var l log
	s := &Server{Socket: socket, Log: l.logger(),
		interfaces: func() ([]net.Interface, error) {
			return []net.Interface{{Index: 7, Name: "eni" + nameSuffix(web, 0)}}, nil
		},
		Enforce: func(_ context.Context, pod types.NamespacedName, interfaces []uint32) error {
			if !reflect.DeepEqual(interfaces, []uint32{7}) {
				t.Errorf("interfaces %v", interfaces)
			}
			asked <- pod
			return result
		}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	eventually(t, "the socket is served", func() bool { return l.count() > 0 })
	if call(t, socket, "EnforceNpToPod") || <-asked != web {
		t.Error("a pod whose policies are not in force has a network")
	}
	result = nil
	if !call(t, socket, "EnforceNpToPod") || <-asked != web || !call(t, socket, "DeletePodNp") {
		t.Error("a pod whose policies are in force has no network")
	}
	cancel()
	<-ended
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket after the end: %v", err)
	}
}

// A socket that another agent serves is left alone until that agent is gone; one that another agent takes over is given up.
func TestAnotherAgentsSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "npa.sock")
	other, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var l log
	s := &Server{Socket: socket, Log: l.logger()}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	eventually(t, "the other agent is reported", func() bool { return l.count() == 1 })
	if err := other.Close(); err != nil { // removes the socket
		t.Fatal(err)
	}
	eventually(t, "the socket is served", func() bool { return l.count() == 2 })

	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	if other, err = net.Listen("unix", socket); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	eventually(t, "the loss is reported", func() bool { return l.count() >= 4 }) // that it is taken, and that another serves it
	cancel()
	<-ended
	if _, err := os.Stat(socket); err != nil {
		t.Errorf("the other agent's socket: %v", err)
	}
}
