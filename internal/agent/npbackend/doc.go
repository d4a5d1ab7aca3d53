// Package npbackend serves the network policy backend of the Amazon VPC CNI: before a pod's network is ready, its CNI plugin asks the agent on
// the node, over a Unix socket, to put the pod's policies in force. No part of the container runtime is involved.
//
// The plugin's side is gRPC service rpc.NPBackend (rpc/rpc.proto of github.com/aws/amazon-vpc-cni-k8s, as of v1.23).
package npbackend
