package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"
)

// Where a file system has no certificates, as that of the image: AWS's endpoints are asked by HTTPS.
func TestCertificatesOfAnEmptyImage(t *testing.T) {
	if os.Getenv("IN_AN_EMPTY_IMAGE") != "" {
		pool, err := x509.SystemCertPool()
		if err != nil || pool.Equal(x509.NewCertPool()) {
			t.Fatalf("no certificate is trusted: %v", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCertificatesOfAnEmptyImage$")
	cmd.Env = append(os.Environ(), "IN_AN_EMPTY_IMAGE=1", "SSL_CERT_FILE=/nonexistent", "SSL_CERT_DIR=/nonexistent")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
