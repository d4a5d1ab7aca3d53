package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"time"
)

const certificateLifetime = 365 * 24 * time.Hour

// An identity is what a certificate says of its owner. Kubernetes takes the
// common name for the user and the organizations for the user's groups.
type identity struct {
	name      string // of the files, and of the kubeconfig
	user      string
	group     string
	dnsNames  []string
	addresses []netip.Addr
}

// identities are all that the cluster's components need, beside the CA.
func (c *Cluster) identities() []identity {
	ids := []identity{
		{
			name: "kube-apiserver", user: "kube-apiserver",
			dnsNames: []string{
				"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local",
			},
			addresses: append([]netip.Addr{
				netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), controlPlane4.Addr(), controlPlane6.Addr(),
			}, apiServiceAddresses...),
		},
		{name: "kubelet-client", user: "kube-apiserver-kubelet-client", group: "system:masters"},
		{name: "front-proxy-client", user: "front-proxy-client"},
		{name: "admin", user: "admin", group: "system:masters"},
		{name: "kube-controller-manager", user: "system:kube-controller-manager"},
		{name: "kube-scheduler", user: "system:kube-scheduler"},
		{name: "kube-proxy", user: "system:kube-proxy"},
	}
	for _, n := range c.nodes() {
		ids = append(ids, identity{
			name: n.name(), user: "system:node:" + n.name(), group: "system:nodes",
			dnsNames: []string{n.name()}, addresses: []netip.Addr{n.address4().Addr(), n.address6().Addr()},
		})
	}
	return ids
}

func (c *Cluster) certificate(name string) string { return c.path("pki", name+".crt") }
func (c *Cluster) key(name string) string         { return c.path("pki", name+".key") }

// writePKI makes a CA, the key that signs service account tokens, and a
// certificate and a kubeconfig for every identity.
func (c *Cluster) writePKI() error {
	ca, err := newAuthority(c.id() + "-ca")
	if err != nil {
		return err
	}
	if err := writeFile(c.certificate("ca"), ca.certPEM, 0o644); err != nil {
		return err
	}
	if err := writeFile(c.key("ca"), ca.keyPEM, 0o600); err != nil {
		return err
	}
	_, serviceAccount, err := newKey()
	if err != nil {
		return err
	}
	if err := writeFile(c.key("service-account"), serviceAccount, 0o600); err != nil {
		return err
	}
	for _, id := range c.identities() {
		cert, key, err := ca.issue(id)
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", id.name, err)
		}
		if err := writeFile(c.certificate(id.name), cert, 0o644); err != nil {
			return err
		}
		if err := writeFile(c.key(id.name), key, 0o600); err != nil {
			return err
		}
		config, err := renderKubeconfig(c.id(), c.controlPlaneAddress(), id.user, ca.certPEM, cert, key)
		if err != nil {
			return err
		}
		if err := writeFile(c.kubeconfig(id.name), config, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// An authority signs the certificates of one cluster.
type authority struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

func newAuthority(name string) (*authority, error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(pkix.Name{CommonName: name})
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, certPEM: encodePEM("CERTIFICATE", der), keyPEM: keyPEM}, nil
}

// issue returns a certificate that is good for servers and clients, and its key, both PEM.
func (a *authority) issue(id identity) (certPEM, keyPEM []byte, err error) {
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	subject := pkix.Name{CommonName: id.user}
	if id.group != "" {
		subject.Organization = []string{id.group}
	}
	template, err := newTemplate(subject)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = id.dnsNames
	for _, address := range id.addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	return encodePEM("CERTIFICATE", der), keyPEM, nil
}

func newTemplate(subject pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      subject,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(certificateLifetime),
	}, nil
}

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
