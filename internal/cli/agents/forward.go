package agents

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/httpstream" //nolint:staticcheck // deprecated, and what client-go takes and gives
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// dial an agent's port on its node's loopback address.
func (a *Agents) dial(pod *corev1.Pod) (net.Conn, error) {
	return Forward(a.config, pod, agentapi.DefaultPort)
}

// Forward connects to a port of a pod, as kubectl port-forward does.
func Forward(config *rest.Config, pod *corev1.Pod, port int) (net.Conn, error) {
	dialer, err := newDialer(config, pod)
	if err != nil {
		return nil, err
	}
	connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return nil, fmt.Errorf("forward a port to pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(port))
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	failure, err := connection.CreateStream(headers)
	if err != nil {
		return nil, closeWith(connection, err)
	}
	_ = failure.Close() // nothing is written to it
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := connection.CreateStream(headers)
	if err != nil {
		return nil, closeWith(connection, err)
	}
	return &forwarded{Stream: data, connection: connection, failure: failure}, nil
}

func closeWith(c io.Closer, err error) error {
	_ = c.Close()
	return err
}

func newDialer(config *rest.Config, pod *corev1.Pod) (httpstream.Dialer, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	target := base.JoinPath("api", "v1", "namespaces", pod.Namespace, "pods", pod.Name, "portforward")
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	overSPDY := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	overWebsocket, err := portforward.NewSPDYOverWebsocketDialer(cloneURL(target), config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialer(overWebsocket, overSPDY, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

func cloneURL(u *url.URL) *url.URL {
	out := *u
	return &out
}

// forwarded is a forwarded stream as a connection.
type forwarded struct {
	httpstream.Stream
	connection httpstream.Connection
	failure    httpstream.Stream
}

// Read gives the reason at the end of an empty stream: there may be no listener.
func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.Stream.Read(p)
	if n == 0 && err != nil {
		if text, _ := io.ReadAll(io.LimitReader(f.failure, 1<<10)); len(text) > 0 {
			return 0, fmt.Errorf("%s", text)
		}
	}
	return n, err
}

// Close the connection too.
func (f *forwarded) Close() error { return f.connection.Close() }

// What http.Transport does not need of a connection.
func (f *forwarded) LocalAddr() net.Addr              { return &net.IPAddr{} }
func (f *forwarded) RemoteAddr() net.Addr             { return &net.IPAddr{} }
func (f *forwarded) SetDeadline(time.Time) error      { return nil }
func (f *forwarded) SetReadDeadline(time.Time) error  { return nil }
func (f *forwarded) SetWriteDeadline(time.Time) error { return nil }
