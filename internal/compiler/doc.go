// Package compiler turns policies, groups of addresses and the pods of one node into the contents of the BPF maps that decide
// about packets.
//
// The maps are plain data, the same on every machine; internal/dataplane writes them to the kernel. Two ideas keep them
// small and cheap to change. A class is the set of groups and blocks that an address belongs to: addresses that no policy
// here tells apart share one, so that adding an address to a group costs one write, however many policies use the group.
// A set is what the policies on a pod decide in one direction: pods under the same policies share it.
//
// # Cost
//
// Whatever the API admits, compiling takes n log n steps and bytes, where n is the size of the policies and of the map entries
// that they come to:
//
//   - blocks.go unites the blocks of a rule. An address belongs to at most one of them then.
//   - tree.go holds sets of numbers that share what they have in common. A class is such a set of atoms, made from that of
//     the prefix around it with a few of them more or less.
//   - matcher.go makes the rows of a set from such sets of rules. Rules that others hide cost what it takes to see that.
//   - budget.go limits what the policies of one pod may come to in one direction, by their own content. The most expensive
//     policies that do not fit are in force without their rules: they isolate, and Problems reports them.
//   - step.go does all this in steps, fairly by namespace; usage.go charges the entries to the namespaces that cause them.
package compiler
