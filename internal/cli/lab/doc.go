// Package lab tries policies with real packets in the local kernel: the pods of manifests become network namespaces behind a router,
// the router is a node of kidoban's, with its resolver, compiler and BPF program, and every pair is connected.
//
// All of it lives in a process of its own, with mount and network namespaces of its own. The kernel takes them away when the process
// ends, however it ends.
package lab
