// Package chaos breaks a cluster's parts on purpose, one after the other, while connections go on that policies allow and that they do not,
// and counts those that went otherwise.
//
//	make chaos                        all faults, and the results into docs/chaos.md
//	make chaos FOCUS='agents|etcd'    some of them, shown only
//	make churn                        pods, Jobs, ports and policies that come and go
//	make soak MINUTES=30 [RACE=1]     change without end: what grows?
//
// With -short it is the part that `make e2e` runs. With KEEP=1 the cluster stays up.
package chaos
