package policy

import (
	"strconv"
	"strings"
)

// resolversStem begins the names of the groups of trusted resolvers: those DNS servers whose answers count. They are shared groups, one for
// each port that resolvers answer at. No policy refers to them, and each agent follows them. The names of all other groups begin differently.
const resolversStem = "trusted-resolvers-"

// ResolversGroup returns the name of the group of trusted resolvers that answer at a port.
func ResolversGroup(port uint16) string { return resolversStem + strconv.Itoa(int(port)) }

// ResolversPort returns the port of a group of trusted resolvers, or false if the name is not that of such a group.
func ResolversPort(group string) (uint16, bool) {
	digits, ok := strings.CutPrefix(group, resolversStem)
	if !ok {
		return 0, false
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	return uint16(port), err == nil && group == ResolversGroup(uint16(port))
}
