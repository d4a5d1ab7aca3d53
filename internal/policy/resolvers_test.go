package policy

import "testing"

func TestGroupsOfResolvers(t *testing.T) {
	for _, port := range []uint16{0, 53, 65535} {
		if got, ok := ResolversPort(ResolversGroup(port)); got != port || !ok {
			t.Errorf("%d: %d, %v", port, got, ok)
		}
	}
	for _, name := range []string{"", "g-53", "trusted-resolvers-", "trusted-resolvers-053", "trusted-resolvers-65536", "trusted-resolvers-53x"} {
		if port, ok := ResolversPort(name); ok {
			t.Errorf("%s: port %d", name, port)
		}
	}
}
