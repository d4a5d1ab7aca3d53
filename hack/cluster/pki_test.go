package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"os"
	"testing"

	"sigs.k8s.io/yaml"
)

func testCluster(t *testing.T, nodes int) *Cluster {
	t.Helper()
	c, err := newCluster(t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	c.Nodes = nodes
	return c
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCertificates(t *testing.T) {
	c := testCluster(t, 2)
	if err := c.writePKI(); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(readFile(t, c.certificate("ca"))) {
		t.Fatal("ca.crt holds no certificate")
	}
	tests := []struct {
		name, user, group string
		hosts             []string
	}{
		{name: "kube-apiserver", user: "kube-apiserver", hosts: []string{
			"127.0.0.1", "::1", "172.30.0.10", "fd30::10", "10.96.0.1", "fd96::1", "kubernetes.default.svc", "localhost",
		}},
		{name: "admin", user: "admin", group: "system:masters"},
		{name: "kubelet-client", user: "kube-apiserver-kubelet-client", group: "system:masters"},
		{name: "kube-scheduler", user: "system:kube-scheduler"},
		{name: "n1", user: "system:node:n1", group: "system:nodes", hosts: []string{"n1", "172.30.0.11", "fd30::11"}},
		{name: "n2", user: "system:node:n2", group: "system:nodes", hosts: []string{"n2", "172.30.0.12", "fd30::12"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pair, err := tls.LoadX509KeyPair(c.certificate(tt.name), c.key(tt.name))
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
				if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
					t.Error(err)
				}
			}
			if got := cert.Subject.CommonName; got != tt.user {
				t.Errorf("user %q, want %q", got, tt.user)
			}
			if got := cert.Subject.Organization; len(got) > 1 || len(got) == 1 && got[0] != tt.group || len(got) == 0 && tt.group != "" {
				t.Errorf("groups %q, want %q", got, tt.group)
			}
			for _, host := range tt.hosts {
				if err := cert.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
			if info, err := os.Stat(c.key(tt.name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("key: mode %v, %v; want 0600", info.Mode(), err)
			}
		})
	}
}

func TestKubeconfigIsWhole(t *testing.T) {
	c := testCluster(t, 1)
	if err := c.writePKI(); err != nil {
		t.Fatal(err)
	}
	var config struct {
		CurrentContext string `json:"current-context"`
		Contexts       []struct {
			Name    string
			Context struct{ Cluster, User string }
		}
		Clusters []struct {
			Name    string
			Cluster struct {
				Server string
				CA     string `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			Name string
			User struct {
				Certificate string `json:"client-certificate-data"`
				Key         string `json:"client-key-data"`
			}
		}
	}
	if err := yaml.Unmarshal(readFile(t, c.kubeconfig("n1")), &config); err != nil {
		t.Fatal(err)
	}
	if len(config.Contexts) != 1 || len(config.Clusters) != 1 || len(config.Users) != 1 {
		t.Fatalf("want one context, cluster and user: %+v", config)
	}
	context, cluster, user := config.Contexts[0], config.Clusters[0], config.Users[0]
	if config.CurrentContext != context.Name || context.Context.Cluster != cluster.Name || context.Context.User != user.Name {
		t.Errorf("names do not fit together: %+v", config)
	}
	if user.Name != "system:node:n1" {
		t.Errorf("user %q", user.Name)
	}
	if cluster.Cluster.Server != "https://172.30.0.10:6443" {
		t.Errorf("server %q", cluster.Cluster.Server)
	}
	for path, data := range map[string]string{
		c.certificate("ca"): cluster.Cluster.CA, c.certificate("n1"): user.User.Certificate, c.key("n1"): user.User.Key,
	} {
		if got, err := base64.StdEncoding.DecodeString(data); err != nil || string(got) != string(readFile(t, path)) {
			t.Errorf("what the kubeconfig holds is not %s: %v", path, err)
		}
	}
}
