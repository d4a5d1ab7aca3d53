package v1alpha1

// Bounds of the schema. They are as wide as the API server's budget for CEL lets three nested lists be: what one expression may
// cost is estimated from the product of the bounds around it.
const (
	// MaxRules is the number of entries in spec.ingress and in spec.egress.
	MaxRules = 400
	// MaxPeersPerRule is the number of peers of one entry. More of them need several entries with the same ports.
	MaxPeersPerRule = 48
	// MaxExceptsPerPeer is the number of excepts of one peer. A CIDR with more of them can be written as its two halves.
	MaxExceptsPerPeer = 16
	// MaxPortsPerRule is the number of ports of one entry.
	MaxPortsPerRule = 2000
	// MaxOriginsPerRule is the number of the policy's own rules that one entry comes from.
	MaxOriginsPerRule = 10000
	// MaxExceptsPerBlock is the number of excepts of the block that narrows a group.
	MaxExceptsPerBlock = 10000
	// MaxSpecBytes bounds a PolicyEndpoint's spec as JSON. No field's bound keeps it from more than etcd takes (1.5 MiB by default).
	MaxSpecBytes = 1 << 20
	// MaxAddressesPerSlice is the number of addresses of one PolicyEndpointSlice.
	MaxAddressesPerSlice = 1000
)
