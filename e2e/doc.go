// Package e2e tests kidoban as a user has it: the images and manifests of a release on a real Kubernetes, judged by real
// connections. All tests share one cluster and the pods of examples/shop; none runs in parallel with another, because each
// applies policies to them.
//
//	make e2e                                            all of it
//	go test -tags=e2e -run 'TestPolicies/end-port' .    a part (in e2e/, after `make bin/cluster`)
//
// With KEEP=1 the cluster stays up, and the next run takes it and what was built meanwhile.
package e2e
