// Package model is the cluster that the commands of kubectl-kidoban ask about: namespaces, pods folded into workloads,
// Services and policies, read from manifests or handed over by who listed them. It answers who reaches whom.
//
// It has one meaning of policies, that of reference.NetworkPolicies, and adds what makes it fast: a question is put to the few pods and
// policies that it is about, and pods that no policy tells apart are asked about once.
package model
