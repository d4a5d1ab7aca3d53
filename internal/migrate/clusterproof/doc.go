// Package clusterproof compares what two sets of policies mean for every cluster: it judges one flow of each class of pods, nodes,
// addresses, ports and domain names that the terms of either set tell apart, and reports the flows that are judged differently.
//
// Both sets name their terms by Terms: each selector, network, port and name that one of their policies asks about. Two flows are of one
// class if no term tells them apart, so that one flow of each class stands for all. Each class is judged in a cluster that has nothing but
// the two ends of the flow. The ends are pods of any namespace with any labels; a cluster's own pods are not looked at.
package clusterproof
