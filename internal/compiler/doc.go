// Package compiler turns policies, groups of addresses and the pods of one node into exact decision maps.
//
// The maps are plain data, the same on every machine; internal/dataplane loads them into BPF maps. Two internings keep
// them small and cheap to change. A class is the set of groups and networks that an address belongs to: addresses that no
// policy here tells apart share one, so an address that joins a group costs one write, however many policies use the
// group. A set is what the policies on a pod say in one direction: pods under the same policies share it.
package compiler
