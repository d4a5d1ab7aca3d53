package certificates

import (
	"crypto/x509"
	"testing"
	"time"
)

var issuer = Issuer{ServerName: "server.example", Lifetimes: Usual}

// For three years a certificate is always usable, and an agent that read the authorities an hour ago verifies it.
func TestRotation(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var b Bundle
	authorities, leaves := map[string]bool{}, map[string]bool{}
	var older []byte
	rotate := func() {
		next, _, err := issuer.Rotate(b, now)
		if err != nil {
			t.Fatal(err)
		}
		if b = next; len(b.authorities) > 2 {
			t.Fatalf("%s: %d authorities", now, len(b.authorities))
		}
	}
	for end := now.AddDate(3, 0, 0); now.Before(end); now = now.Add(39 * time.Hour) {
		rotate()
		older = b.Authorities()
		now = now.Add(time.Hour)
		rotate()
		leaf := issuer.Usable(b, now)
		if leaf == nil {
			t.Fatalf("%s: there is no usable certificate", now)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(older)
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: issuer.ServerName, Roots: roots, CurrentTime: now}); err != nil {
			t.Fatalf("%s: an agent with the authorities of an hour ago: %v", now, err)
		}
		authorities[string(b.authorities[len(b.authorities)-1].Raw)], leaves[string(leaf.Certificate[0])] = true, true
	}
	if len(authorities) < 4 || len(leaves) < 40 {
		t.Errorf("in three years there were %d authorities and %d certificates", len(authorities), len(leaves))
	}
	rotate()
	older = b.Authorities()
	if again, changed, err := issuer.Rotate(b, now); changed || err != nil || string(again.Authorities()) != string(older) {
		t.Errorf("without need the bundle changes: %v, %v", changed, err)
	}
}

// A bundle is the same after it was stored.
func TestParse(t *testing.T) {
	now := time.Now()
	b, _, err := issuer.Rotate(Bundle{}, now)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Data()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil || issuer.Usable(got, now) == nil || string(got.Authorities()) != string(b.Authorities()) {
		t.Fatalf("stored and read: %v", err)
	}
	if next, changed, err := issuer.Rotate(got, now); changed || err != nil {
		t.Errorf("the stored bundle is replaced: %v, %+v", err, next)
	}
}

// Whatever another client writes to the Secret, the leader replaces it by a usable bundle.
func TestBrokenBundles(t *testing.T) {
	now := time.Now()
	good, _, err := issuer.Rotate(Bundle{}, now)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := issuer.Rotate(Bundle{}, now)
	if err != nil {
		t.Fatal(err)
	}
	data, err := good.Data()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Data()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string][]byte){
		"empty":                        func(d map[string][]byte) { clear(d) },
		"no leaf":                      func(d map[string][]byte) { delete(d, keyLeaf) },
		"no authority's key":           func(d map[string][]byte) { delete(d, keyAuthorityKey) },
		"another authority's key":      func(d map[string][]byte) { d[keyAuthorityKey] = foreign[keyAuthorityKey] },
		"a leaf of another authority":  func(d map[string][]byte) { d[keyLeaf], d[keyLeafKey] = foreign[keyLeaf], foreign[keyLeafKey] },
		"text instead of certificates": func(d map[string][]byte) { d[keyAuthorities] = []byte("x") },
		"a broken certificate": func(d map[string][]byte) {
			d[keyAuthorities] = []byte("-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n")
		},
	} {
		broken := map[string][]byte{}
		for k, v := range data {
			broken[k] = v
		}
		change(broken)
		b, _ := Parse(broken)
		if issuer.Usable(b, now) != nil {
			t.Errorf("%s: a certificate is usable", name)
		}
		next, changed, err := issuer.Rotate(b, now)
		if err != nil || !changed || issuer.Usable(next, now) == nil {
			t.Errorf("%s: not replaced: %v", name, err)
		}
	}
}
