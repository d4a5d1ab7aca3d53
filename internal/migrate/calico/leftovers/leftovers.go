package leftovers

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Leftover is something of Calico's on this node.
type Leftover struct {
	// Kind of thing, as "ipset"; Name of it, as "cali40s:abc".
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Detail that distinguishes it from others.
	Detail string `json:"detail,omitempty"`
	// Kept is why Remove leaves it; empty for what is removed.
	Kept string `json:"kept,omitempty"`

	remove func() error
}

func (l *Leftover) String() string { return strings.TrimSpace(l.Kind + " " + l.Name + " " + l.Detail) }

// Node is where to look. The network is that of the calling thread's namespace.
type Node struct {
	// Root is the node's root directory: "/" or where it is mounted.
	Root string
	// Pools are Calico's pools of addresses: what routes and addresses of shared devices are in them is Calico's.
	Pools []netip.Prefix
}

// Find what there is, in the order in which it has to be removed: what refers to a thing before that thing. What cannot be looked
// at is an error beside what was found.
func (n *Node) Find() ([]Leftover, error) {
	var out []Leftover
	var errs []error
	for _, look := range n.places() {
		found, err := look()
		out, errs = append(out, found...), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// Remove what was found, but for what is kept. It does what can be done, and returns all errors.
func Remove(list []Leftover) error {
	var errs []error
	for i := range list {
		if l := &list[i]; l.Kept == "" && l.remove != nil {
			if err := l.remove(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", l, err))
			}
		}
	}
	return errors.Join(errs...)
}

// path on the node.
func (n *Node) path(p string) string { return filepath.Join(n.Root, p) }

// Running is the process of Calico's that would make anew what is removed; empty where there is none.
func (n *Node) Running() (string, error) {
	list, err := filepath.Glob(n.path("/proc/[0-9]*/comm"))
	if err != nil {
		return "", err
	}
	for _, file := range list {
		comm, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		if name := strings.TrimSpace(string(comm)); slices.Contains([]string{"calico-node", "calico-felix"}, name) {
			return fmt.Sprintf("%s (pid %s)", name, filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", nil
}
