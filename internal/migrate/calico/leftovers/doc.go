// Package leftovers finds what Calico leaves on a node when it is uninstalled, and removes it: rules, chains and sets, links and routes,
// rules of routing, BPF programs and pins, files.
//
// Calico marks what it makes: chains begin with "cali-", rules of its in others' chains have a comment that begins with "cali:" or jump
// into such a chain, sets begin with "cali", its tables in nftables are called "calico", its BPF programs begin with "cali". Nothing else is touched. What could be Calico's and
// may belong to another program is reported and kept, with the steps to remove it.
package leftovers
