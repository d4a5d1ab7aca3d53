package resolver

import (
	"cmp"
	"iter"
	"maps"
	"slices"
)

// numbersOfNamespace is how many numbers the pods of one namespace can give to a port name among a policy's peers.
// Workloads have one or two.
const numbersOfNamespace = 8

// numbersOfName are how many numbers a port name can have among the peers of a rule: the first with which the policy
// fits. With none, its size depends on nothing but the policy itself.
var numbersOfName = []int{64, 16, 4, 1, 0}

// namespaceNumber is a number that pods of a namespace give to a port name.
type namespaceNumber struct {
	namespace string
	number    uint16
}

// countNumbers counts the pods with an address in a block, if there is one, that give each number to a name.
func countNumbers(pods iter.Seq[*pod], name portName, within *block) map[namespaceNumber]int {
	out := map[namespaceNumber]int{}
	for p := range pods {
		if len(within.of(p)) > 0 {
			p.eachNumber(name, func(n uint16) { out[namespaceNumber{p.Key.Namespace, n}]++ })
		}
	}
	return out
}

// portNumbers are the numbers of a port name.
type portNumbers struct {
	// kept are those in use by the most namespaces first.
	kept    []uint16
	leftOut int
}

// boundNumbers keeps the lowest numbers of each namespace.
func boundNumbers(counts map[namespaceNumber]int) portNumbers {
	of := map[string][]uint16{}
	all := map[uint16]struct{}{}
	for n := range counts {
		of[n.namespace] = append(of[n.namespace], n.number)
		all[n.number] = struct{}{}
	}
	namespaces := map[uint16]int{}
	for _, numbers := range of {
		slices.Sort(numbers)
		for _, n := range numbers[:min(numbersOfNamespace, len(numbers))] {
			namespaces[n]++
		}
	}
	kept := slices.SortedFunc(maps.Keys(namespaces), func(a, b uint16) int {
		return cmp.Or(cmp.Compare(namespaces[b], namespaces[a]), cmp.Compare(a, b))
	})
	return portNumbers{kept, len(all) - len(kept)}
}

// most returns so many of the numbers, ascending, and how many are left out.
func (p portNumbers) most(count int) (numbers []uint16, leftOut int) {
	numbers = slices.Clone(p.kept[:min(count, len(p.kept))])
	slices.Sort(numbers)
	return numbers, p.leftOut + len(p.kept) - len(numbers)
}
