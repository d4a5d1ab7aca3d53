// Package replay judges recorded flows by policies. It answers which flows of a recording get another verdict under other policies, without a
// cluster: each flow carries the labels, named ports and addresses that its ends had when it was recorded.
//
// The verdict is that of package policy/reference, asked about a cluster that contains the two ends of the flow and nothing else. What makes
// that fast is that flows whose ends no policy can tell apart are asked about once. A flow that cannot be decided is counted as unknown with
// its reason.
package replay
