package leftovers

func (n *Node) places() []func() ([]Leftover, error) {
	return []func() ([]Leftover, error){
		n.nftables, n.legacy, n.ipsets, n.programs, n.rules, n.routes, n.links, n.pins, n.files,
	}
}
