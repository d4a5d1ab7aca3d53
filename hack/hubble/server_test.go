//go:build hubble

package hubble

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
)

// server serves Hubble's API with TLS to callers that have its token.
type server struct{ address, ca, token string }

func serve(t *testing.T, r *hubbletest.Reader) *server {
	t.Helper()
	certificate, ca := certify(t)
	s := &server{ca: filepath.Join(t.TempDir(), "ca.crt"), token: "a-token"}
	if err := os.WriteFile(s.ca, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(certificate)))
	hubble.Register(g, hubble.Options{
		Version: "v0.1.0", Now: time.Now,
		Reader: func(ctx context.Context) (hubble.Reader, error) {
			authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte("kidoban:a-token"))
			if !slices.Equal(metadata.ValueFromIncomingContext(ctx, "authorization"), []string{authorization}) {
				return nil, status.Error(codes.Unauthenticated, "the token is not valid")
			}
			return r, nil
		},
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s
}

// certify returns a certificate for the name observer that signs itself, and its PEM.
func certify(t *testing.T) (*tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "observer"}, DNSNames: []string{"observer"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
