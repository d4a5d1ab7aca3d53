package replay

import (
	"fmt"
	"strings"
)

func portText(protocol string, port uint16) string {
	if port == 0 {
		return protocol
	}
	return fmt.Sprintf("%s %d", protocol, port)
}

// Ports is the protocol and the port, as text.
func (c *Change) Ports() string { return portText(c.Protocol, c.Port) }

// Outside is the end of a change as text: a name, or addresses.
func (c *Change) Outside(p Party) string {
	if p.Kind != KindOutside {
		return p.String()
	}
	var names []string
	for _, a := range c.Addresses {
		names = append(names, a.String())
	}
	text := strings.Join(names, ", ")
	switch more := c.AddressNumber - len(c.Addresses); {
	case text == "" && c.AddressNumber > 0:
		text = fmt.Sprintf("more than %d addresses", MaxAddresses)
	case text == "":
		text = "addresses that were not kept"
	case more > 0:
		text += fmt.Sprintf(" and %d more addresses", more)
	}
	if p.Name != "" {
		return p.Name + " (" + text + ")"
	}
	return text
}

// Joins reports whether two changes differ in their ports only.
func (c *Change) Joins(d *Change) bool {
	return c.From == d.From && c.To == d.To && c.Before == d.Before && c.After == d.After && c.Why == d.Why
}

// Add another change that joins this one. The addresses shown stay those of the first, if they are not the same.
func (c *Change) Add(d *Change) {
	c.Count.Add(&d.Count)
	c.AddressNumber = max(c.AddressNumber, d.AddressNumber)
}
