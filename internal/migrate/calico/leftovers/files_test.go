package leftovers

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

const calicoConf = `{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico"}, {"type": "portmap"}]}`

func TestFiles(t *testing.T) {
	root := t.TempDir()
	keep := map[string]string{
		"/opt/cni/bin/portmap": "", "/opt/cni/bin/aws-cni": "", "/var/lib/cni/x": "", "/etc/cni/net.d/10-aws.conflist": `{"plugins": [{"type": "aws-cni"}, {"type": "calico"}]}`,
		"/etc/cni/net.d/multus.d/x": "", "/var/log/calico.log": "", "/var/lib/kubelet/plugins/ebs.csi.aws.com/csi.sock": "",
	}
	put(t, root, keep)
	put(t, root, map[string]string{
		"/opt/cni/bin/calico": "", "/opt/cni/bin/calico-ipam": "", "/etc/cni/net.d/10-calico.conflist": calicoConf, "/etc/cni/net.d/calico-kubeconfig": "",
		"/var/lib/calico/nodename": "", "/run/calico/x": "", "/var/log/calico/cni/cni.log": "",
		"/var/lib/kubelet/plugins_registry/csi.tigera.io-reg.sock": "", "/var/lib/kubelet/plugins/csi.tigera.io/csi.sock": "",
	})
	if err := os.Symlink("../run", filepath.Join(root, "/var/run")); err != nil {
		t.Fatal(err)
	}
	node := &Node{Root: root}
	list, err := node.files()
	if err != nil {
		t.Fatal(err)
	}
	var removed, kept []string
	for i := range list {
		if list[i].Kept == "" {
			removed = append(removed, list[i].Name)
		} else {
			kept = append(kept, list[i].Name)
		}
	}
	if want := []string{"/etc/cni/net.d/10-calico.conflist", "/opt/cni/bin/calico", "/opt/cni/bin/calico-ipam", "/etc/cni/net.d/calico-kubeconfig", "/var/lib/calico", "/run/calico", "/var/log/calico", "/var/lib/kubelet/plugins_registry/csi.tigera.io-reg.sock", "/var/lib/kubelet/plugins/csi.tigera.io"}; !slices.Equal(removed, want) {
		t.Errorf("removed %v", removed)
	}
	if want := []string{"/etc/cni/net.d/10-aws.conflist"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v", kept)
	}
	if err := Remove(list); err != nil {
		t.Fatal(err)
	}
	for name := range keep {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range removed {
		if _, err := os.Stat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

func TestTheOnlyCNIConfigurationIsKept(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"/etc/cni/net.d/10-calico.conflist": calicoConf})
	list, err := (&Node{Root: root}).files()
	if err != nil || len(list) != 1 || list[0].Kept == "" {
		t.Errorf("%v, %v", list, err)
	}
}

func TestRunning(t *testing.T) {
	root := t.TempDir()
	put(t, root, map[string]string{"/proc/12/comm": "bash\n"})
	node := &Node{Root: root}
	if name, err := node.Running(); name != "" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
	put(t, root, map[string]string{"/proc/17/comm": "calico-node\n"})
	if name, err := node.Running(); name != "calico-node (pid 17)" || err != nil {
		t.Errorf("%q, %v", name, err)
	}
}
