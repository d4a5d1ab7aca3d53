package leftovers

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const cniDir = "/etc/cni/net.d"

// files that only Calico's installer and its node agent write.
var files = []string{
	"/opt/cni/bin/calico", "/opt/cni/bin/calico-ipam", cniDir + "/calico-kubeconfig", cniDir + "/calico-tls",
	"/var/lib/calico", "/run/calico", "/var/run/calico", "/var/log/calico",
	"/var/lib/kubelet/plugins_registry/csi.tigera.io-reg.sock", "/var/lib/kubelet/plugins/csi.tigera.io",
}

func (n *Node) files() ([]Leftover, error) {
	out, err := n.cniConfigurations()
	errs := []error{err}
	var seen []os.FileInfo // /var/run is often /run
	for _, name := range files {
		info, err := os.Stat(n.path(name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			errs = append(errs, err)
			continue
		case sameAsAny(seen, info):
			continue
		}
		seen = append(seen, info)
		l := Leftover{Kind: "file", Name: name, remove: func() error { return os.RemoveAll(n.path(name)) }}
		if info.IsDir() {
			l.Kind = "directory"
			if mount := n.mountBelow(name); mount != "" {
				l.Kept = mount + " is mounted in it: unmount that first"
			}
		}
		out = append(out, l)
	}
	return out, errors.Join(errs...)
}

func sameAsAny(seen []os.FileInfo, info os.FileInfo) bool {
	return slices.ContainsFunc(seen, func(s os.FileInfo) bool { return os.SameFile(s, info) })
}

// mountBelow a directory; removing it would remove what is mounted there.
func (n *Node) mountBelow(name string) string {
	table, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return "something"
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4]+"/", n.path(name)+"/") {
			return f[4]
		}
	}
	return ""
}

// cniConfigurations of Calico's, if pods can start without them.
func (n *Node) cniConfigurations() ([]Leftover, error) {
	list, err := filepath.Glob(n.path(cniDir + "/*"))
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(f string) bool {
		return !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(f))
	})
	var out []Leftover
	others := 0
	for _, file := range list {
		text, err := os.ReadFile(file)
		if err != nil {
			return out, err
		}
		name := filepath.Join(cniDir, filepath.Base(file))
		switch types := cniPlugins(text); {
		case !slices.Contains(types, "calico"):
			others++
		case types[0] == "calico":
			out = append(out, Leftover{Kind: "CNI configuration", Name: name, remove: func() error { return os.Remove(file) }})
		default:
			others++
			out = append(out, Leftover{Kind: "CNI configuration", Name: name, Detail: strings.Join(types, ", "), Kept: "another plugin leads the chain: take calico out of its list by hand"})
		}
	}
	for i := range out {
		if out[i].Kept == "" && others == 0 {
			out[i].Kept = "there is no other CNI configuration: without it no pod starts on this node; install the next CNI first"
		}
	}
	return out, nil
}

// cniPlugins are the types of a configuration's plugins, in their order.
func cniPlugins(text []byte) (types []string) {
	var c struct {
		Type    string `json:"type"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	if json.NewDecoder(bytes.NewReader(text)).Decode(&c) != nil {
		return nil
	}
	if c.Type != "" {
		types = append(types, c.Type)
	}
	for _, p := range c.Plugins {
		types = append(types, p.Type)
	}
	return types
}
