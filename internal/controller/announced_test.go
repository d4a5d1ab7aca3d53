package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/stream"
)

func TestAddressesOfAnAnnouncement(t *testing.T) {
	many := make([][]byte, maxAnnounced+1)
	for i := range many {
		many[i] = []byte{10, 0, 0, byte(i)}
	}
	mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}
	for name, tc := range map[string]struct {
		raw  [][]byte
		want string
	}{
		"both families":          {[][]byte{{10, 0, 0, 1}, {0x20, 1, 0xd, 0xb8, 15: 1}}, "[10.0.0.1 2001:db8::1]"},
		"one twice":              {[][]byte{{10, 0, 0, 1}, mapped, {10, 0, 0, 1}}, "[10.0.0.1]"},
		"none":                   {nil, "[]"},
		"too many":               {many, "[]"},
		"three bytes":            {[][]byte{{10, 0, 0}}, "[]"},
		"unspecified":            {[][]byte{{0, 0, 0, 0}}, "[]"},
		"loopback":               {[][]byte{{127, 0, 0, 1}}, "[]"},
		"loopback, IPv6":         {[][]byte{{15: 1}}, "[]"},
		"loopback, mapped":       {[][]byte{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}}, "[]"},
		"link-local":             {[][]byte{{169, 254, 0, 1}}, "[]"},
		"multicast":              {[][]byte{{224, 0, 0, 1}}, "[]"},
		"broadcast":              {[][]byte{{255, 255, 255, 255}}, "[]"},
		"a good one and another": {[][]byte{{10, 0, 0, 1}, {127, 0, 0, 1}}, "[]"},
	} {
		got, ok := announcedAddresses(tc.raw)
		if fmt.Sprint(got) != tc.want || ok != (tc.want != "[]") {
			t.Errorf("%s: %v, %t; want %s", name, got, ok, tc.want)
		}
	}
}

// What is stored of a message is as small as what the API server could have sent: a node cannot fill the controller's memory.
func TestReportsThatNoObjectCanHave(t *testing.T) {
	const pe, cpe = stream.PolicyState_POLICY_ENDPOINT, stream.PolicyState_CLUSTER_POLICY_ENDPOINT
	long := strings.Repeat("x", 254)
	for name, tc := range map[string]struct {
		state *stream.PolicyState
		want  bool
	}{
		"a PolicyEndpoint":        {&stream.PolicyState{Kind: pe, Namespace: "shop", Name: "db", Uid: "u", Reason: "WaitingForGroups"}, true},
		"a ClusterPolicyEndpoint": {&stream.PolicyState{Kind: cpe, Name: "db"}, true},
		"no namespace":            {&stream.PolicyState{Kind: pe, Name: "db"}, false},
		"a namespace":             {&stream.PolicyState{Kind: cpe, Namespace: "shop", Name: "db"}, false},
		"another kind":            {&stream.PolicyState{Kind: 9, Namespace: "shop", Name: "db"}, false},
		"a long namespace":        {&stream.PolicyState{Kind: pe, Namespace: long, Name: "db"}, false},
		"a long name":             {&stream.PolicyState{Kind: cpe, Name: long}, false},
		"a long UID":              {&stream.PolicyState{Kind: cpe, Name: "db", Uid: long}, false},
		"a long reason":           {&stream.PolicyState{Kind: cpe, Name: "db", Reason: long}, false},
	} {
		if got := isReport(tc.state); got != tc.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
