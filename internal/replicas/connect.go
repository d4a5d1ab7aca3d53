package replicas

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
)

// keepAlive notices a replica's node that is gone without closing its connections.
var keepAlive = keepalive.ClientParameters{Time: 15 * time.Second, Timeout: 5 * time.Second}

// Access is how an agent connects to a component's replicas.
type Access struct {
	Authority Authority
	// ServerName is the name in the replicas' certificates.
	ServerName string
	// TokenFile contains the agent's token.
	TokenFile string
}

// Connect returns a connection to a replica, and a context whose calls bear the agent's token. Authority and token are read anew for each
// connection, because both are rotated. Nothing is sent before the first call.
func (a *Access) Connect(ctx context.Context, address string, opts ...grpc.DialOption) (*grpc.ClientConn, context.Context, error) {
	pem, err := a.Authority(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read the certificate authority of %s: %w", a.ServerName, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, errors.New("the certificate authority of " + a.ServerName + " contains no certificate")
	}
	token, err := os.ReadFile(a.TokenFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the agent's token: %w", err)
	}
	conn, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: a.ServerName, MinVersion: tls.VersionTLS13})),
		grpc.WithKeepaliveParams(keepAlive), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithUserAgent("kidoban-agent"),
	}, opts...)...)
	if err != nil {
		return nil, nil, err
	}
	return conn, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token))), nil
}

// Follow calls follow for each replica that watch reports, until the replica is gone or the context is done: then the context of follow is
// done. It returns when watch does, without waiting for follow.
func Follow(ctx context.Context, watch Watch, follow func(ctx context.Context, address string)) {
	replicas := map[string]context.CancelFunc{}
	defer func() {
		for _, cancel := range replicas {
			cancel()
		}
	}()
	watch(ctx, func(addresses map[string]struct{}) {
		for address, cancel := range replicas {
			if _, ok := addresses[address]; !ok {
				cancel()
				delete(replicas, address)
			}
		}
		for address := range addresses {
			if replicas[address] == nil {
				following, cancel := context.WithCancel(ctx)
				replicas[address] = cancel
				go follow(following, address)
			}
		}
	})
}
