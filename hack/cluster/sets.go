package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A binarySet is built and cached as a whole.
type binarySet struct {
	title  string
	module string   // its version names the set
	dirs   []string // below hack: what it is built from; the first holds the go.mod
	about  string   // how long a first build takes
	prefix string   // to its directory's name, where two sets have one module
	build  func(b *builder, version, out string) error
}

var controlPlaneSet = binarySet{
	title:  "Kubernetes and etcd",
	module: "k8s.io/kubernetes",
	dirs:   []string{"testenv"},
	about:  "about 10 minutes on two cores and 4 GB of Go build cache",
	build:  buildControlPlane,
}

var nodeSet = binarySet{
	title:  "containerd and the CNI plugins",
	module: "github.com/containerd/containerd/v2",
	dirs:   []string{"nodeenv", "image", "cluster/pause"},
	about:  "about 3 minutes on two cores",
	build:  buildNode,
}

var vpcSet = binarySet{
	title:  "the Amazon VPC CNI's plugins",
	module: "github.com/aws/amazon-vpc-cni-k8s",
	dirs:   []string{"vpcenv"},
	about:  "about 5 minutes on two cores",
	build:  buildVPC,
}

// suiteSet is no part of a cluster: it tests one.
var suiteSet = binarySet{
	title:  "Kubernetes' end-to-end suite",
	module: "k8s.io/kubernetes",
	dirs:   []string{"e2eenv"},
	about:  "about 5 minutes on two cores, if Kubernetes is built already",
	prefix: "e2e-",
	build:  buildSuite,
}

// dnsSet is no part of a cluster: tests run it there.
var dnsSet = binarySet{
	title:  "CoreDNS",
	module: "github.com/coredns/coredns",
	dirs:   []string{"dnsenv", "image"},
	about:  "about 2 minutes on two cores",
	prefix: "dns-",
	build:  buildDNS,
}

// dnsImage is the name of CoreDNS's image.
const dnsImage = "kidoban.dev/coredns:dev"

// kubernetesPrograms are the names that the executable of hack/testenv goes by.
var kubernetesPrograms = []string{
	"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl",
}

// kubernetesFlags tell Kubernetes' binaries their version.
func kubernetesFlags(version string) string {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	ldflags := "-s -w"
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for name, value := range map[string]string{
			"gitVersion": version, "gitMajor": parts[0], "gitMinor": parts[1], "gitTreeState": "clean", "gitCommit": "",
		} {
			ldflags += fmt.Sprintf(" -X %s.%s=%s", pkg, name, value)
		}
	}
	return ldflags
}

func buildControlPlane(b *builder, version, out string) error {
	bin := filepath.Join(out, "bin")
	if err := b.goBuild("testenv", kubernetesFlags(version), filepath.Join(bin, "kubernetes"), "./cmd/kubernetes"); err != nil {
		return err
	}
	for _, name := range kubernetesPrograms {
		if err := os.Symlink("kubernetes", filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

func buildNode(b *builder, version, out string) error {
	const (
		containerd = "github.com/containerd/containerd/v2"
		plugins    = "github.com/containernetworking/plugins/plugins"
	)
	ldflags := fmt.Sprintf("-s -w -X %s/version.Version=%s", containerd, strings.TrimPrefix(version, "v"))
	bin := filepath.Join(out, "bin")
	err := b.goBuild("nodeenv", ldflags, bin+"/",
		containerd+"/cmd/containerd", containerd+"/cmd/containerd-shim-runc-v2", containerd+"/cmd/ctr")
	if err != nil {
		return err
	}
	// In a directory of their own: one is called bridge, as iproute2's program is.
	err = b.goBuild("nodeenv", "-s -w", filepath.Join(bin, "cni")+"/",
		plugins+"/main/ptp", plugins+"/main/bridge", plugins+"/main/loopback", plugins+"/ipam/host-local", plugins+"/meta/portmap")
	if err != nil {
		return err
	}
	pause, pack := filepath.Join(out, "pause"), filepath.Join(out, "image")
	if err := b.goBuild("cluster", "-s -w", pause, "./pause"); err != nil {
		return err
	}
	if err := b.goBuild("image", "-s -w", pack, "."); err != nil {
		return err
	}
	if err := packImage(b, pack, filepath.Join(out, "pause.tar"), pauseImage, pause+":/pause"); err != nil {
		return err
	}
	return errors.Join(os.Remove(pause), os.Remove(pack))
}

// buildSuite makes e2e.test, ginkgo, which runs it, and agnhost, which its pods run.
func buildSuite(b *builder, version, out string) error {
	bin := filepath.Join(out, "bin")
	err := b.goBuild("e2eenv", kubernetesFlags(version), bin+"/",
		"k8s.io/kubernetes/test/images/agnhost", "github.com/onsi/ginkgo/v2/ginkgo")
	if err != nil {
		return err
	}
	return b.goTestBuild("e2eenv", kubernetesFlags(version), filepath.Join(bin, "e2e.test"), "k8s.io/kubernetes/test/e2e")
}

// buildDNS makes CoreDNS, and packs it into bin/coredns.tar.
func buildDNS(b *builder, version, out string) error {
	bin := filepath.Join(out, "bin")
	pack := filepath.Join(out, "image")
	ldflags := "-s -w -X github.com/coredns/coredns/coremain.GitCommit=" + version
	if err := errors.Join(b.goBuild("dnsenv", ldflags, filepath.Join(bin, "coredns"), "./coredns"), b.goBuild("image", "-s -w", pack, ".")); err != nil {
		return err
	}
	if err := packImage(b, pack, filepath.Join(bin, "coredns.tar"), dnsImage, filepath.Join(bin, "coredns")+":/coredns"); err != nil {
		return err
	}
	return os.Remove(pack)
}

// packImage makes an OCI tar of one executable, by hack/image.
func packImage(b *builder, pack, tar, tag, executable string) error {
	_, name, _ := strings.Cut(executable, ":")
	cmd := exec.CommandContext(b.ctx, pack, "--output="+tar, "--tag="+tag, "--entrypoint="+name, "--user=65535", executable)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pack %s: %w: %s", tag, err, msg)
	}
	return nil
}

// buildVPC gives the plugins the names that Amazon's image installs them by.
func buildVPC(b *builder, version, out string) error {
	const vpc = "github.com/aws/amazon-vpc-cni-k8s/cmd"
	bin := filepath.Join(out, "bin")
	ldflags := "-s -w -X main.version=" + version
	return errors.Join(
		b.goBuild("vpcenv", ldflags, filepath.Join(bin, "cni", "aws-cni"), vpc+"/routed-eni-cni-plugin"),
		b.goBuild("vpcenv", ldflags, filepath.Join(bin, "cni", "egress-cni"), vpc+"/egress-cni-plugin"),
		b.goBuild("vpcenv", "-s -w", filepath.Join(bin, "ipamd"), "./ipamd"),
	)
}
