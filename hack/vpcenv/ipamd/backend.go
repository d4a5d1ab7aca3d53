package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/aws/amazon-vpc-cni-k8s/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const (
	socketPath     = "/var/run/aws-node/ipamd.sock" // where the plugin looks for the daemon
	checkpointPath = "/var/run/aws-node/ipam.json"
)

// backend answers the plugin.
type backend struct {
	rpc.UnimplementedCNIBackendServer
	config
	pool   *pool
	attach func(device int) error
}

// serve answers calls on the socket until the context is done.
func serve(ctx context.Context, path string, b *backend) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	rpc.RegisterCNIBackendServer(s, b)
	defer context.AfterFunc(ctx, s.GracefulStop)()
	return s.Serve(l)
}

// AddNetwork gives a pod its address.
func (b *backend) AddNetwork(_ context.Context, r *rpc.AddNetworkRequest) (*rpc.AddNetworkReply, error) {
	a, err := b.pool.assign(r.GetContainerID())
	if err == nil {
		err = b.attach(a.Device)
	}
	if err != nil {
		fmt.Printf("pod %s/%s gets no address: %v\n", r.GetK8S_POD_NAMESPACE(), r.GetK8S_POD_NAME(), err)
		return &rpc.AddNetworkReply{}, nil
	}
	fmt.Printf("pod %s/%s has %s on %s\n", r.GetK8S_POD_NAMESPACE(), r.GetK8S_POD_NAME(), a.Address, b.Interfaces[a.Device].Name)
	reply := &rpc.AddNetworkReply{
		Success:              true,
		IPAllocationMetadata: []*rpc.IPAllocationMetadata{metadata(a)},
		NetworkPolicyMode:    b.PolicyMode,
	}
	for _, prefix := range b.VPC {
		if prefix.Addr().Is4() {
			reply.VPCv4CIDRs = append(reply.VPCv4CIDRs, prefix.String())
		} else {
			reply.VPCv6CIDRs = append(reply.VPCv6CIDRs, prefix.String())
		}
	}
	return reply, nil
}

// DelNetwork takes a pod's address back.
func (b *backend) DelNetwork(_ context.Context, r *rpc.DelNetworkRequest) (*rpc.DelNetworkReply, error) {
	a, err := b.pool.release(r.GetContainerID())
	if err != nil {
		return nil, err
	}
	fmt.Printf("pod %s/%s returns %s\n", r.GetK8S_POD_NAMESPACE(), r.GetK8S_POD_NAME(), a.Address)
	return &rpc.DelNetworkReply{
		Success: true, IPAllocationMetadata: []*rpc.IPAllocationMetadata{metadata(a)}, NetworkPolicyMode: b.PolicyMode,
	}, nil
}

func metadata(a assignment) *rpc.IPAllocationMetadata {
	m := &rpc.IPAllocationMetadata{DeviceNumber: int32(a.Device), RouteTableId: int32(routeTable(a.Device))}
	if a.Address.Is4() {
		m.IPv4Addr = a.Address.String()
	} else {
		m.IPv6Addr = a.Address.String()
	}
	return m
}

// routeTable is that of an interface: the main one for the primary interface.
func routeTable(device int) int {
	if device == 0 {
		return unix.RT_TABLE_MAIN
	}
	return device + 1
}

// everywhere is the default route's destination of an address's family.
func everywhere(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
