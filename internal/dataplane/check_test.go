package dataplane_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// dropCapabilities takes capabilities from the calling thread, which must end with the test.
func dropCapabilities(bits ...uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	for _, bit := range bits {
		data[bit/32].Effective &^= 1 << (bit % 32)
	}
	return unix.Capset(&header, &data[0])
}

func TestCheck(t *testing.T) {
	good := netnstest.BPFFS(t)
	for name, test := range map[string]struct {
		bpffs    string
		without  []uint
		prepare  func(n *netnstest.Namespace)
		errors   []string // parts of the error; none: no error
		warnings []string
	}{
		"a good node":     {},
		"no bpffs":        {bpffs: "/tmp", errors: []string{"no BPF file system at /tmp", "hostPath"}},
		"no directory":    {bpffs: "/nowhere", errors: []string{"no BPF file system at /nowhere", "no such file"}},
		"no BPF":          {without: []uint{unix.CAP_BPF}, errors: []string{"capabilities are missing: BPF:"}},
		"no capabilities": {without: []uint{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN}, errors: []string{"missing: NET_ADMIN, PERFMON, BPF:"}},
		"kube-proxy in IPVS mode, and no bpffs": {
			bpffs:    "/tmp",
			prepare:  func(n *netnstest.Namespace) { n.AddBridge("kube-ipvs0") }, // a dummy link really; the name tells
			errors:   []string{"kube-ipvs0", "nftables or iptables", "no BPF file system"},
			warnings: []string{"kube-ipvs0"}, // as when it comes while the agent runs
		},
		"a bridge without pods": {prepare: func(n *netnstest.Namespace) {
			n.Sysctl("bridge/bridge-nf-call-iptables", "0")
			n.AddBridge("docker0")
		}},
		"a bridge whose packets pass by": {
			prepare: func(n *netnstest.Namespace) {
				n.Sysctl("bridge/bridge-nf-call-iptables", "1")
				n.Sysctl("bridge/bridge-nf-call-ip6tables", "0")
				n.AddBridgedPod(n.AddBridge("cni0"), "10.9.0.1", "fd09::1")
			},
			warnings: []string{"net.bridge.bridge-nf-call-ip6tables"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := netnstest.NewRouter(t)
			if test.prepare != nil {
				test.prepare(n)
			}
			opts := dataplane.Options{BPFFS: good}
			if test.bpffs != "" {
				opts.BPFFS = test.bpffs
			}
			n.Do(func() error {
				if err := dropCapabilities(test.without...); err != nil {
					return err
				}
				err, warnings := dataplane.Check(opts), inspect.Warnings()
				if (err != nil) != (test.errors != nil) {
					t.Errorf("error %v", err)
				}
				for _, part := range test.errors {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("error %q does not say %q", err, part)
					}
				}
				if len(warnings) != len(test.warnings) {
					t.Errorf("warnings %q", warnings)
				}
				for i, part := range test.warnings {
					if !strings.Contains(string(warnings[i]), part) {
						t.Errorf("warning %q does not say %q", warnings[i], part)
					}
				}
				return nil
			})
		})
	}
}

// None of the three can be spared: the kernel itself refuses something without it.
func TestEachCapabilityIsNeeded(t *testing.T) {
	fs := netnstest.BPFFS(t)
	for name, bit := range map[string]uint{"BPF": unix.CAP_BPF, "PERFMON": unix.CAP_PERFMON, "NET_ADMIN": unix.CAP_NET_ADMIN} {
		netnstest.NewRouter(t).Do(func() error {
			// With CAP_SYS_ADMIN the kernel asks for neither BPF nor PERFMON.
			if err := dropCapabilities(bit, unix.CAP_SYS_ADMIN); err != nil {
				return err
			}
			d, err := dataplane.New(dataplane.Options{BPFFS: fs})
			if err == nil {
				defer func() { check(t, d.Close()) }()
				err = d.Attach()
			}
			if err == nil || !strings.Contains(err.Error(), "not permitted") && !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("without %s: %v", name, err)
			}
			return nil
		})
	}
}

// The three capabilities are enough for everything.
func TestCapabilitiesSuffice(t *testing.T) {
	fs := netnstest.BPFFS(t)
	netnstest.NewRouter(t).Do(func() error {
		var others []uint
		for bit := range uint(unix.CAP_LAST_CAP + 1) {
			if bit != unix.CAP_BPF && bit != unix.CAP_PERFMON && bit != unix.CAP_NET_ADMIN {
				others = append(others, bit)
			}
		}
		if err := dropCapabilities(others...); err != nil {
			return err
		}
		if err := dataplane.Check(dataplane.Options{BPFFS: fs}); err != nil {
			return err
		}
		d, err := dataplane.New(dataplane.Options{BPFFS: fs})
		if err != nil {
			return err
		}
		defer func() { check(t, d.Close()) }()
		if err := d.Apply(twoOfEverything()); err != nil {
			return err
		}
		if _, err := d.Sync(isolated(0), nil); err != nil {
			return err
		}
		if err := d.Attach(); err != nil {
			return err
		}
		if _, err := d.Counters(); err != nil {
			return err
		}
		return dataplane.Cleanup(fs)
	})
}
