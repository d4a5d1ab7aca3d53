package main

import (
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestClusterNames(t *testing.T) {
	for name, good := range map[string]bool{
		"dev": true, "e2e1": true, "a": true, "": false, "a-b": false, "Dev": false, "1a": false, "../x": false, "averylongname123": false,
	} {
		if _, err := newCluster("/nowhere", name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestClusterIsRead(t *testing.T) {
	c := testCluster(t, 3)
	if _, err := loadCluster(c.root, c.Name); !errors.Is(err, errNoCluster) {
		t.Errorf("before it is there: %v", err)
	}
	c.ProxyMode = "iptables"
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	got, err := loadCluster(c.root, c.Name)
	if err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%+v, %v; want %+v", got, err, c)
	}
	if err := os.WriteFile(c.path("cluster.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := loadCluster(c.root, c.Name); err == nil || !strings.Contains(err.Error(), "cluster.json") {
		t.Errorf("a file that is cut off: %v", err)
	}
}

func TestLockIsExclusive(t *testing.T) {
	c := testCluster(t, 1)
	held, err := c.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.lock(); !errors.Is(err, errLocked) {
		t.Errorf("a second lock: %v", err)
	}
	// The directory goes while it is locked, as in down: the next lock is on a new one.
	if err := os.RemoveAll(c.dir()); err != nil {
		t.Fatal(err)
	}
	again, err := c.lock()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{held, again} {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAddresses(t *testing.T) {
	c := testCluster(t, maxNodes)
	seen := map[string]string{controlPlane4.Addr().String(): "control plane", controlPlane6.Addr().String(): "control plane"}
	for _, n := range c.nodes() {
		for _, a := range []string{
			n.address4().Addr().String(), n.address6().Addr().String(), n.podCIDR4().String(), n.podCIDR6().String(),
		} {
			if other, ok := seen[a]; ok {
				t.Errorf("%s has %s, as %s", n.name(), a, other)
			}
			seen[a] = n.name()
		}
	}
	last := c.nodes()[maxNodes-1]
	for got, want := range map[string]string{
		last.address4().String(): "172.30.0.60/24", last.address6().String(): "fd30::60/64",
		last.podCIDR4().String(): "10.244.50.0/24", last.podCIDR6().String(): "fd44:0:0:50::/64",
	} {
		if got != want {
			t.Errorf("node %s: %s, want %s", last.name(), got, want)
		}
	}
}

func TestFamilies(t *testing.T) {
	for in, want := range map[string]string{"IPv4": "IPv4", "IPv6": "IPv6", "IPv4,IPv6": "IPv4 IPv6", "IPv6,IPv4": "IPv6 IPv4"} {
		if got, err := parseFamilies(in); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "ipv4", "IPv4,IPv4", "IPv4,", "IPv4, IPv6"} {
		if got, err := parseFamilies(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

func TestOneFamily(t *testing.T) {
	c := testCluster(t, 2)
	c.IPFamilies, c.ProxyMode = []string{ipv6}, "nftables"
	n := c.nodes()[1]
	if err := n.writeConfig(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"kube-proxy.yaml", "cni/cni.conflist", "resolv.conf", "kubelet.yaml"} {
		if content := string(readFile(t, n.path(file))); strings.Contains(content, "10.") || strings.Contains(content, "0.0.0.0/0") {
			t.Errorf("%s of an IPv6 cluster speaks of IPv4:\n%s", file, content)
		}
	}
	if got := n.addressList(); got != "fd30::12" {
		t.Errorf("node's addresses %q", got)
	}
	if got := c.serviceCIDRs(); got != "fd96::/112" {
		t.Errorf("Services %q", got)
	}
}

func TestParseNode(t *testing.T) {
	c := testCluster(t, 2)
	for s, want := range map[string]int{"1": 1, "n2": 2} {
		if n, err := c.parseNode(s); err != nil || n.index != want {
			t.Errorf("%q: %v, %v", s, n.index, err)
		}
	}
	for _, s := range []string{"", "0", "3", "n", "x1"} {
		if n, err := c.parseNode(s); err == nil {
			t.Errorf("%q: %v, want an error", s, n.index)
		}
	}
}

func TestNodeConfig(t *testing.T) {
	c := testCluster(t, 2)
	c.ProxyMode, c.Node, c.NRIRequired = "nftables", "/bin", "keeper"
	n := c.nodes()[1]
	if err := n.writeConfig(); err != nil {
		t.Fatal(err)
	}
	wants := map[string][]string{
		"containerd.toml":  {`sandbox = "kidoban.dev/pause:dev"`, `bin_dirs = ["/bin/cni"]`, `required_plugins = ["keeper"]`},
		"kubelet.yaml":     {"cgroupRoot: /kidoban-test/n2", "tlsCertFile: " + c.certificate("n2")},
		"kube-proxy.yaml":  {"mode: nftables", "hostnameOverride: n2", `nodePortAddresses: ["172.30.0.0/24", "fd30::/64"]`},
		"cni/cni.conflist": {`"subnet": "10.244.2.0/24"`, `"subnet": "fd44:0:0:2::/64"`},
		"resolv.conf":      {"nameserver 10.96.0.10"},
	}
	for file, lines := range wants {
		content := readFile(t, n.path(file))
		for _, line := range lines {
			if !strings.Contains(string(content), line) {
				t.Errorf("%s lacks %q:\n%s", file, line, content)
			}
		}
		if file != "containerd.toml" && file != "resolv.conf" { // JSON is YAML
			if err := yaml.Unmarshal(content, &map[string]any{}); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	n.c.NRIRequired = ""
	if err := n.writeConfig(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(readFile(t, n.path("containerd.toml"))), "required_plugins") {
		t.Error("containerd requires an NRI plugin though none was asked for")
	}
}
