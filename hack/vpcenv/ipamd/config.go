package main

import (
	"errors"
	"fmt"
	"net/netip"
)

// config is what the daemon would learn from AWS, and its settings.
type config struct {
	// Interfaces are the node's network interfaces (ENIs), the primary one first. Device numbers are their places in the list.
	Interfaces []eni `json:"interfaces"`
	// VPC are the VPC's ranges: packets to other destinations get the node's address.
	VPC []netip.Prefix `json:"vpc"`
	// PolicyMode is NETWORK_POLICY_ENFORCING_MODE; empty: the plugin does not wait for a network policy agent.
	PolicyMode string `json:"policyMode"`
}

// An eni is a network interface.
type eni struct {
	// Name of the link. All but the primary one are down until the first pod needs them.
	Name string `json:"name"`
	// Address is the interface's own, with the length of its subnet's prefix.
	Address netip.Prefix `json:"address"`
	// Gateway is the VPC's router.
	Gateway netip.Addr `json:"gateway"`
	// Pods is the range of its addresses for pods.
	Pods netip.Prefix `json:"pods"`
}

func (c config) check() error {
	if len(c.Interfaces) == 0 {
		return errors.New("no interfaces")
	}
	for _, e := range c.Interfaces {
		if e.Name == "" || !e.Address.IsValid() || !e.Gateway.IsValid() || !e.Pods.IsValid() {
			return fmt.Errorf("interface %+v: name, address, gateway and pods must be set", e)
		}
		if e.Pods.Addr().Is4() != c.ipv4() {
			return fmt.Errorf("interface %s: its pods have another family than those of %s", e.Name, c.Interfaces[0].Name)
		}
	}
	return nil
}

// ipv4 reports whether pods have IPv4 addresses; otherwise they have IPv6 addresses. The VPC CNI gives none both.
func (c config) ipv4() bool { return c.Interfaces[0].Pods.Addr().Is4() }
