package v1alpha1

// Bounds of the schema. The API server estimates what a CEL expression may cost from the product of the bounds of the lists
// around it; these bounds are about as large as its budget allows for three nested lists.
const (
	// MaxRules is the maximum number of rules in spec.ingress and in spec.egress.
	MaxRules = 400
	// MaxPeersPerRule is the maximum number of peers of a rule. Write more peers as several rules with the same ports.
	MaxPeersPerRule = 48
	// MaxExceptsPerPeer is the maximum number of excepts of a peer. Write a CIDR with more of them as its two halves.
	MaxExceptsPerPeer = 16
	// MaxDomainNamesPerPeer is the maximum number of domain names of a peer.
	MaxDomainNamesPerPeer = 25
	// MaxPortsPerRule is the maximum number of ports of a rule.
	MaxPortsPerRule = 2000
	// MaxRuleIndexesPerRule is the maximum number of the policy's own rules that a rule is made from.
	MaxRuleIndexesPerRule = 10000
	// MaxExceptsPerBlock is the maximum number of excepts of the block that narrows a group.
	MaxExceptsPerBlock = 10000
	// MaxSpecBytes is the maximum size of a PolicyEndpoint's spec as JSON. The schema cannot express it; it keeps the object
	// below etcd's limit for a request (1.5 MiB by default).
	MaxSpecBytes = 1 << 20
	// MaxAddressesPerSlice is the maximum number of addresses of a PolicyEndpointSlice.
	MaxAddressesPerSlice = 1000
	// MaxGroupsPerSlice is the maximum number of groups of a PolicyEndpointSlice, and of a class in it. An address with more
	// groups is in several slices.
	MaxGroupsPerSlice = 1000
	// MaxGroupsOfClasses is the maximum number of groups of all classes of a PolicyEndpointSlice together.
	MaxGroupsOfClasses = 50000
	// MaxSlicesPerGroup is the maximum number of PolicyEndpointSlices of a group.
	MaxSlicesPerGroup = 10000
)
