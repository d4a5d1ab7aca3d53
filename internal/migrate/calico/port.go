package calico

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// Port is a port, a range of ports or a port's name: 80, "80:90" or "http".
type Port struct {
	First, Last uint16
	Name        string
}

func (p Port) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.First == p.Last:
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d:%d", p.First, p.Last)
}

// UnmarshalJSON reads a number or a string.
func (p *Port) UnmarshalJSON(b []byte) error {
	text, err := numberOrString(b)
	if err != nil {
		return fmt.Errorf("%s is not a port", b)
	}
	first, last, ranged := strings.Cut(text, ":")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		if ranged || text == "" || text[0] >= '0' && text[0] <= '9' || text[0] == '-' {
			return fmt.Errorf("%s is not a port", b)
		}
		p.Name = text
		return nil
	}
	z := a
	if ranged {
		if z, err = strconv.ParseUint(last, 10, 16); err != nil || z < a {
			return fmt.Errorf("%s is not a range of ports", b)
		}
	}
	p.First, p.Last = uint16(a), uint16(z)
	return nil
}

// Protocol is an IP protocol.
type Protocol policy.Protocol

// protocols by the names that Calico gives them, in lower case. UDPLite is 136 (RFC 3828).
var protocols = map[string]policy.Protocol{
	"tcp": policy.TCP, "udp": policy.UDP, "sctp": policy.SCTP, "icmp": policy.ICMP, "icmpv6": policy.ICMPv6, "udplite": 136,
}

// UnmarshalJSON reads a name or a number.
func (p *Protocol) UnmarshalJSON(b []byte) error {
	text, err := numberOrString(b)
	if err != nil {
		return fmt.Errorf("%s is not a protocol", b)
	}
	if known, ok := protocols[strings.ToLower(text)]; ok {
		*p = Protocol(known)
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n == 0 {
		return fmt.Errorf("%s is not a protocol", b)
	}
	*p = Protocol(n)
	return nil
}

func numberOrString(b []byte) (string, error) {
	var text string
	if len(b) > 0 && b[0] == '"' {
		err := json.Unmarshal(b, &text)
		return text, err
	}
	var n int64
	err := json.Unmarshal(b, &n)
	return strconv.FormatInt(n, 10), err
}
