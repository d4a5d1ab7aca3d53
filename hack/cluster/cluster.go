package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// stateRoot holds one directory for each cluster. It does not depend on $HOME,
// because the namespaces and cgroups that it accounts for belong to the machine.
// It must lie on a file system that can carry overlayfs: containerd's images are here.
const stateRoot = "/var/lib/kidoban-cluster"

const maxNodes = 50

var validName = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)

var errNoCluster = errors.New("no such cluster")

// A Cluster is one test cluster of this machine, as cluster.json records it.
type Cluster struct {
	Name        string   `json:"name"`
	Nodes       int      `json:"nodes"`
	ProxyMode   string   `json:"proxyMode"`             // nftables or iptables
	IPFamilies  []string `json:"ipFamilies"`            // IPv4, IPv6 or both; the first is the one that Services get unless they ask
	NRIRequired string   `json:"nriRequired,omitempty"` // NRI plugin without which containerd starts no container

	CNI           string `json:"cni"`                     // ptp, bridge, flannel or vpc
	VPCEgress     bool   `json:"vpcEgress,omitempty"`     // pods reach the family that they have no address of through a second interface
	VPCPolicyMode string `json:"vpcPolicyMode,omitempty"` // the VPC CNI's NETWORK_POLICY_ENFORCING_MODE

	ControlPlane string    `json:"controlPlane"`  // directory of the binaries built from hack/testenv
	Node         string    `json:"node"`          // directory of the binaries built from hack/nodeenv
	VPC          string    `json:"vpc,omitempty"` // directory of the binaries built from hack/vpcenv
	PauseImage   string    `json:"pauseImage"`    // OCI tar
	Created      time.Time `json:"created"`
	Ready        bool      `json:"ready"` // false while up is at work, and after an up that was killed

	root string
}

// newCluster names a cluster below root; it touches no file.
func newCluster(root, name string) (*Cluster, error) {
	if !validName.MatchString(name) {
		return nil, fmt.Errorf("cluster name %q: want a letter and up to 14 letters and digits, in lower case", name)
	}
	return &Cluster{Name: name, IPFamilies: []string{ipv4, ipv6}, CNI: cniPTP, root: root}, nil
}

// loadCluster reads what up recorded. The error is errNoCluster where there is none.
func loadCluster(root, name string) (*Cluster, error) {
	c, err := newCluster(root, name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(c.path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s (start one with `cluster up`)", errNoCluster, name)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("%s: %w", c.path("cluster.json"), err)
	}
	return c, nil
}

func (c *Cluster) save() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(c.path("cluster.json"), b, 0o644)
}

// id is the cluster's name in what all of the machine shares: network
// namespaces start with it, the cgroup is called so.
func (c *Cluster) id() string { return "kidoban-" + c.Name }

func (c *Cluster) dir() string { return filepath.Join(c.root, c.Name) }

func (c *Cluster) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir()}, elem...)...)
}

func (c *Cluster) kubeconfig(user string) string { return c.path("kubeconfig", user) }

// log is where a component of the control plane, or a node's init, writes.
func (c *Cluster) log(component string) string { return c.path("log", component+".log") }

// program is the path of a binary built from hack/testenv.
func (c *Cluster) program(name string) string { return filepath.Join(c.ControlPlane, name) }

// searchPath is $PATH with the cluster's own binaries first.
func (c *Cluster) searchPath() string {
	return c.ControlPlane + ":" + c.Node + ":" + os.Getenv("PATH")
}

func (c *Cluster) nodes() []node {
	nodes := make([]node, c.Nodes)
	for i := range nodes {
		nodes[i] = node{c: c, index: i + 1}
	}
	return nodes
}

func (c *Cluster) nodeCount() string {
	if c.Nodes == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", c.Nodes)
}

// writeFile makes parent directories and replaces the file in one step, so
// that a reader never sees half of it.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
