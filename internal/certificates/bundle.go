// Package certificates makes, stores and rotates the certificate of a server that agents connect to, and publishes the
// certificate authority that they trust.
package certificates

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// Lifetimes of certificates.
type Lifetimes struct {
	Authority, Leaf time.Duration
	// Overlap is how long agents can read a new authority before a certificate needs it.
	Overlap time.Duration
	// Skew is how far the clocks of nodes may be behind.
	Skew time.Duration
}

// Usual are the lifetimes outside of tests.
var Usual = Lifetimes{Authority: 365 * 24 * time.Hour, Leaf: 30 * 24 * time.Hour, Overlap: time.Hour, Skew: 5 * time.Minute}

// Issuer makes the certificates of a server.
type Issuer struct {
	// ServerName is the name in the certificate, which agents verify instead of an address.
	ServerName string
	Lifetimes
}

// Keys of the Secret. The ConfigMap has the first.
const (
	keyAuthorities  = "ca.crt"
	keyAuthorityKey = "ca.key"
	keyLeaf         = "tls.crt"
	keyLeafKey      = "tls.key"
)

// Bundle is the content of the Secret: all authorities that agents trust, the newest last, with the key of the
// newest, and the certificate of the server.
type Bundle struct {
	authorities []*x509.Certificate
	key         *ecdsa.PrivateKey
	leaf        *tls.Certificate
}

// Parse reads the content of the Secret. Of content that is not usable it returns what is, with an error.
func Parse(data map[string][]byte) (b Bundle, err error) {
	authorities, err := parseCertificates(data[keyAuthorities])
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", keyAuthorities, err)
	}
	if len(authorities) == 0 {
		return Bundle{}, nil
	}
	pair, err := tls.X509KeyPair(pemCertificate(authorities[len(authorities)-1].Raw), data[keyAuthorityKey])
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", keyAuthorityKey, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return Bundle{}, fmt.Errorf("%s is not an ECDSA key", keyAuthorityKey)
	}
	b = Bundle{authorities: authorities, key: key}
	leaf, err := tls.X509KeyPair(data[keyLeaf], data[keyLeafKey])
	if err != nil {
		return b, fmt.Errorf("%s: %w", keyLeaf, err)
	}
	b.leaf = &leaf
	return b, nil
}

// Data is the content of the Secret.
func (b Bundle) Data() (map[string][]byte, error) {
	authorityKey, err := pemKey(b.key)
	if err != nil {
		return nil, err
	}
	leafKey, err := pemKey(b.leaf.PrivateKey)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{
		keyAuthorities:  b.Authorities(),
		keyAuthorityKey: authorityKey,
		keyLeaf:         pemCertificate(b.leaf.Certificate[0]),
		keyLeafKey:      leafKey,
	}, nil
}

// Authorities is what agents trust, PEM.
func (b Bundle) Authorities() []byte {
	var all [][]byte
	for _, c := range b.authorities {
		all = append(all, pemCertificate(c.Raw))
	}
	return bytes.Join(all, nil)
}

// Usable returns the server's certificate, or nil if there is none that is valid and that one of the
// authorities signed.
func (i Issuer) Usable(b Bundle, now time.Time) *tls.Certificate {
	if b.leaf == nil || i.signer(b, now) == nil {
		return nil
	}
	return b.leaf
}

// signer returns the authority that signed the leaf; nil if the leaf is not valid.
func (i Issuer) signer(b Bundle, now time.Time) *x509.Certificate {
	for _, authority := range b.authorities {
		roots := x509.NewCertPool()
		roots.AddCert(authority)
		if _, err := b.leaf.Leaf.Verify(x509.VerifyOptions{DNSName: i.ServerName, Roots: roots, CurrentTime: now}); err == nil {
			return authority
		}
	}
	return nil
}

// Rotate returns the bundle that should follow, and whether it differs. Two thirds through the life of the
// newest authority, a new one joins it, and after the overlap the leaf is signed by the new one.
func (i Issuer) Rotate(b Bundle, now time.Time) (Bundle, bool, error) {
	next, changed := Bundle{key: b.key, leaf: b.leaf}, false
	for _, c := range b.authorities {
		if now.After(c.NotAfter) {
			changed = true
			continue
		}
		next.authorities = append(next.authorities, c)
	}
	if n := len(next.authorities); n == 0 || isOld(next.authorities[n-1], now) {
		authority, key, err := i.newAuthority(now)
		if err != nil {
			return b, false, err
		}
		next.authorities, next.key = append(next.authorities, authority), key
		changed = true
	}
	newest := next.authorities[len(next.authorities)-1]
	var signer *x509.Certificate
	if next.leaf != nil {
		signer = i.signer(next, now)
	}
	if signer == nil || (isOld(next.leaf.Leaf, now) || !signer.Equal(newest)) && now.Sub(newest.NotBefore) >= i.Skew+i.Overlap {
		leaf, err := i.newLeaf(newest, next.key, now)
		if err != nil {
			return b, false, err
		}
		next.leaf, changed = leaf, true
	}
	return next, changed, nil
}

// isOld reports whether two thirds of a certificate's life have passed.
func isOld(c *x509.Certificate, now time.Time) bool {
	return now.Sub(c.NotBefore) > c.NotAfter.Sub(c.NotBefore)*2/3
}

func (i Issuer) newAuthority(now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: i.ServerName + " authority"},
		NotBefore: now.Add(-i.Skew), NotAfter: now.Add(i.Authority),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{i.ServerName},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	authority, err := x509.ParseCertificate(raw)
	return authority, key, err
}

func (i Issuer) newLeaf(authority *x509.Certificate, signer *ecdsa.PrivateKey, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	until := now.Add(i.Leaf)
	if until.After(authority.NotAfter) {
		until = authority.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: i.ServerName}, DNSNames: []string{i.ServerName},
		NotBefore: now.Add(-i.Skew), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, authority, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(raw)
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}, err
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
}

func parseCertificates(data []byte) (all []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
}

func pemCertificate(raw []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func pemKey(key crypto.PrivateKey) ([]byte, error) {
	if key == nil {
		return nil, errors.New("there is no key")
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), nil
}
