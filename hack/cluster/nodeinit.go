package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const containerdSocket = "/run/containerd/containerd.sock"

// run is the node's init, PID 1 of the node's namespaces: it makes what the node
// has to itself and then keeps containerd, the kubelet and kube-proxy running.
// It returns only when that has become impossible.
func (n node) run() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("node-init has to be PID 1, which `cluster up` makes it; it is %d", os.Getpid())
	}
	if err := unix.Sethostname([]byte(n.name())); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	if err := n.makeMounts(); err != nil {
		return err
	}
	s := newSupervisor()
	if err := s.start(&program{
		name: "containerd",
		argv: []string{n.c.Node + "/containerd", "--config=" + n.path("containerd.toml")},
		log:  n.log("containerd"),
	}); err != nil {
		return err
	}
	go func() {
		awaitSocket(containerdSocket) // the kubelet exits without it
		programs := []*program{n.kubelet(), n.kubeProxy()}
		if n.c.CNI == cniVPC {
			programs = append(programs, n.ipamd())
		}
		for _, p := range programs {
			if err := s.start(p); err != nil {
				s.fail(err)
			}
		}
	}()
	return s.wait()
}

func (n node) kubelet() *program {
	return &program{
		name: "kubelet",
		argv: []string{
			n.c.program("kubelet"),
			"--config=" + n.path("kubelet.yaml"),
			"--kubeconfig=" + n.c.kubeconfig(n.name()),
			"--hostname-override=" + n.name(),
			"--node-ip=" + n.addressList(),
		},
		log: n.log("kubelet"),
	}
}

func (n node) kubeProxy() *program {
	return &program{
		name: "kube-proxy",
		argv: []string{n.c.program("kube-proxy"), "--config=" + n.path("kube-proxy.yaml")},
		log:  n.log("kube-proxy"),
	}
}

func (n node) ipamd() *program {
	return &program{name: "ipamd", argv: []string{n.c.VPC + "/ipamd", n.path("ipamd.json")}, log: n.log("ipamd")}
}

// awaitSocket waits until a process listens on a socket. That it may take for
// ever is no harm: the supervisor gives up on a containerd that does not start.
func awaitSocket(path string) {
	for {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
