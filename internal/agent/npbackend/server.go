package npbackend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
)

// DefaultSocket is where the plugin calls.
const DefaultSocket = "/var/run/aws-node/npa.sock"

const (
	// enforceTimeout bounds the wait for one pod. The plugin then reports an error, and the kubelet retries.
	enforceTimeout = 20 * time.Second
	// checkInterval is how often the server looks at who has the socket.
	checkInterval = time.Second
)

// Server serves the socket.
type Server struct {
	// Socket is its path.
	Socket string
	// Enforce returns when a pod's policies are in force. interfaces are the indexes of the node's ends of the pod's interfaces.
	Enforce func(ctx context.Context, pod types.NamespacedName, interfaces []uint32) error
	Log     logr.Logger

	interfaces func() ([]net.Interface, error) // net.Interfaces, except in tests

	logged string // why the socket is not served
}

// Run serves the socket until the context is done. It leaves a socket alone that another process serves, and takes it over when that process
// is gone.
func (s *Server) Run(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.serve(ctx)
		if reason := fmt.Sprint(err); ctx.Err() == nil && err != nil && reason != s.logged {
			s.logged = reason
			s.Log.Info("Not serving the VPC CNI's network policy backend; its plugin does not wait for this agent", "socket", s.Socket, "reason", reason)
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkInterval):
		}
	}
}

var (
	errServed = errors.New("another network policy agent serves the socket")
	errTaken  = errors.New("another process has replaced the socket")
)

// serve serves the socket until the context is done or another process replaces the socket.
func (s *Server) serve(ctx context.Context) error {
	listener, err := listen(s.Socket)
	if err != nil {
		return err
	}
	own, err := os.Stat(s.Socket)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	server := grpc.NewServer(grpc.ForceServerCodec(codec{}), grpc.MaxRecvMsgSize(4096))
	server.RegisterService(&service, s)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	s.logged = ""
	s.Log.Info("Serving the VPC CNI's network policy backend: a pod's network is ready when its policies are in force", "socket", s.Socket)

	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	isOwn := func() bool {
		now, err := os.Stat(s.Socket)
		return err == nil && os.SameFile(own, now)
	}
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if isOwn() {
				continue
			}
			err = errTaken
		case <-ctx.Done():
			if isOwn() {
				err = os.Remove(s.Socket)
			}
		}
		server.Stop()
		return err
	}
}

// listen makes the socket, unless another process serves it.
func listen(path string) (net.Listener, error) {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		return nil, errors.Join(errServed, conn.Close())
	}
	if _, err := os.Stat(path); err == nil { // of a process that has ended
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // it may be another process's by then
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// backend is what service calls.
type backend interface {
	enforce(ctx context.Context, r *enforceRequest) *reply
}

// service describes rpc.NPBackend.
var service = grpc.ServiceDesc{
	ServiceName: "rpc.NPBackend",
	HandlerType: (*backend)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "EnforceNpToPod", Handler: handler(func(ctx context.Context, b backend, r *enforceRequest) *reply { return b.enforce(ctx, r) })},
		// The pod's interface goes after this call, and its entries with it.
		{MethodName: "DeletePodNp", Handler: handler(func(context.Context, backend, *enforceRequest) *reply { return &reply{success: true} })},
	},
}

func handler(f func(context.Context, backend, *enforceRequest) *reply) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		r := &enforceRequest{}
		if err := decode(r); err != nil {
			return nil, err
		}
		return f(ctx, srv.(backend), r), nil
	}
}

func (s *Server) listInterfaces() ([]net.Interface, error) {
	if s.interfaces != nil {
		return s.interfaces()
	}
	return net.Interfaces()
}

func (s *Server) enforce(ctx context.Context, r *enforceRequest) *reply {
	ctx, cancel := context.WithTimeout(ctx, enforceTimeout)
	defer cancel()
	pod := types.NamespacedName{Namespace: r.namespace, Name: r.name}
	all, err := s.listInterfaces()
	if err == nil {
		var interfaces []uint32
		if interfaces, err = interfacesOf(pod, r.interfaces, all); err == nil {
			err = s.Enforce(ctx, pod, interfaces)
		}
	}
	if err != nil {
		s.Log.Error(err, "A pod's policies are not in force; its network is not ready, and the kubelet retries", "pod", pod)
	}
	return &reply{success: err == nil}
}
