// Package proof compares two sets of policies: it evaluates both over every class of pods, addresses and ports that their terms tell apart,
// and gives what differs, each with a flow to show it.
//
// Both sets are judged by calico.Judge, as Calico documents it for its own policies and for Kubernetes'. Policies are looked at as they are
// written: neither the pods that run today nor what a conversion thought is asked. Two flows are of one class if no selector, network,
// port or protocol of either set tells them apart, so one flow of each class stands for all.
package proof
