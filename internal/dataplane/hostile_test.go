package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// isolated are tables under which these pods accept connections to port 80 from everybody and refuse all
// else.
func isolated(flags compiler.PodFlags, pods ...netip.Addr) *compiler.Maps {
	accept := compiler.Decision{Action: policy.Allow, Tier: policy.TierNetworkPolicy, Rule: 1}
	t := &compiler.Maps{
		Pods:  map[netip.Addr]compiler.Pod{},
		Rows:  map[compiler.RowKey]compiler.Row{{Set: 1}: {PortList: 1, Default: compiler.DefaultDeny}},
		Ports: map[compiler.PortKey]compiler.Decision{},
	}
	for _, p := range pods {
		t.Pods[p] = compiler.Pod{Sets: [2]compiler.SetID{policy.Ingress: 1}, Flags: flags}
	}
	for _, protocol := range someProtocol {
		t.Ports[compiler.PortKey{PortList: 1, Protocol: protocol, Port: 80, Bits: 16}] = accept
	}
	return t
}

// tiered are maps under which these pods accept the same packets, by the Baseline tier after a Pass of the Admin tier.
func tiered(pods ...netip.Addr) *compiler.Maps {
	pass, baseline := denies(policy.Ingress, everyone()), denies(policy.Ingress, everyone())
	pass.Rules[policy.Ingress][0].Action = policy.Pass
	accept := everyone()
	accept.Action, accept.EveryPort = policy.Allow, false
	for _, protocol := range someProtocol {
		accept.Ports = append(accept.Ports, port(protocol, 80))
	}
	baseline.Tier = policy.TierBaseline
	baseline.Rules[policy.Ingress] = []policy.Rule{accept, baseline.Rules[policy.Ingress][0]}
	c := compiler.New()
	for _, p := range pods {
		c.SetPod(p.String(), compiler.PodSpec{Addresses: []netip.Addr{p}, Policies: []*policy.Policy{pass, baseline}})
	}
	c.Commit()
	return c.Maps()
}

// pokes bytes into the IP packet.
func poke(offset int, values ...byte) func([]byte) []byte {
	return func(ip []byte) []byte {
		copy(ip[offset:], values)
		return ip
	}
}

// cut leaves n bytes of the upper layer and says so honestly.
func cut(n int) func([]byte) []byte {
	return func(ip []byte) []byte {
		if ip[0]>>4 == 4 {
			binary.BigEndian.PutUint16(ip[2:], uint16(20+n))
			return ip[:20+n]
		}
		binary.BigEndian.PutUint16(ip[4:], uint16(n))
		return ip[:40+n]
	}
}

// drop cuts n bytes off and says nothing.
func drop(n int) func([]byte) []byte {
	return func(ip []byte) []byte { return ip[:len(ip)-n] }
}

func grow(n int) func([]byte) []byte {
	return func(ip []byte) []byte { return append(ip, make([]byte, n)...) }
}

func chain(n int, e extension) []extension {
	var out []extension
	for range n {
		out = append(out, e)
	}
	return out
}

func TestHostilePackets(t *testing.T) {
	const (
		pod4, pod6   = "10.0.0.1", "fd00::1"
		peer4, peer6 = "10.0.0.2", "fd00::2"
	)
	to4 := func(protocol policy.Protocol, port uint16) policy.Flow { return flow(peer4, pod4, protocol, port) }
	to6 := func(protocol policy.Protocol, port uint16) policy.Flow { return flow(peer6, pod6, protocol, port) }
	hop, route, dest, auth := extension{kind: 0}, extension{kind: 43}, extension{kind: 60}, extension{kind: 51}
	fragment := func(offsetAndMore uint16) []extension {
		return []extension{{kind: 44, body: []byte{0, byte(offsetAndMore >> 8), byte(offsetAndMore)}}}
	}
	const (
		passes = iota
		refused
		unparsable
		invalid // whether a pod is isolated or not
	)

	pods := []netip.Addr{netip.MustParseAddr(pod4), netip.MustParseAddr(pod6)}
	d := newDataplane(t, dataplane.Options{})
	run := newRunner(t, d)

	for name, test := range map[string]struct {
		packet
		want int
	}{
		"IPv4":                                {packet{Flow: to4(policy.TCP, 80)}, passes},
		"IPv4, wrong port":                    {packet{Flow: to4(policy.TCP, 81)}, refused},
		"IPv4 options":                        {packet{Flow: to4(policy.TCP, 80), options: make([]byte, 8)}, passes},
		"IPv4 options up to the limit":        {packet{Flow: to4(policy.UDP, 80), options: make([]byte, 40)}, passes},
		"IPv4 options that look like port 80": {packet{Flow: to4(policy.TCP, 81), options: []byte{0, 80, 0, 80, 0, 80, 0, 80}}, refused},
		"IPv4 do not fragment":                {packet{Flow: to4(policy.TCP, 80), edit: poke(6, 0x40)}, passes},
		"IPv4 first fragment":                 {packet{Flow: to4(policy.TCP, 80), edit: poke(6, 0x20)}, unparsable},
		"IPv4 middle fragment":                {packet{Flow: to4(policy.TCP, 80), edit: poke(6, 0x20, 0x01)}, unparsable},
		"IPv4 last fragment":                  {packet{Flow: to4(policy.TCP, 80), edit: poke(6, 0x00, 0x01)}, unparsable},
		"IPv4 header shorter than itself":     {packet{Flow: to4(policy.TCP, 80), edit: poke(0, 0x44)}, unparsable},
		"IPv4 header longer than the packet":  {packet{Flow: to4(policy.ICMP, 0), edit: poke(0, 0x4f)}, unparsable},
		"IPv4 of another version":             {packet{Flow: to4(policy.TCP, 80), edit: poke(0, 0x65)}, unparsable},
		"IPv4 length beyond the end":          {packet{Flow: to4(policy.TCP, 80), edit: drop(1)}, unparsable},
		"IPv4 length 0":                       {packet{Flow: to4(policy.TCP, 80), edit: poke(2, 0, 0)}, unparsable},
		"IPv4 length of the header alone":     {packet{Flow: to4(policy.TCP, 80), edit: cut(0)}, unparsable},
		"IPv4 padding after the end":          {packet{Flow: to4(policy.TCP, 80), edit: grow(20)}, passes},
		"IPv4 protocol 0":                     {packet{Flow: to4(0, 0)}, refused},
		"IPv4 with IPv6's ICMP":               {packet{Flow: to4(policy.ICMPv6, 0), icmp: 135, hopLimit: 255}, refused},
		"TCP ports alone":                     {packet{Flow: to4(policy.TCP, 80), edit: cut(4)}, unparsable},
		"TCP header less a byte":              {packet{Flow: to4(policy.TCP, 80), edit: cut(19)}, unparsable},
		"TCP header in padding":               {packet{Flow: to4(policy.TCP, 80), edit: poke(2, 0, 24)}, unparsable},
		"UDP header less a byte":              {packet{Flow: to4(policy.UDP, 80), edit: cut(7)}, unparsable},
		"UDP length that lies":                {packet{Flow: to4(policy.UDP, 81), edit: poke(24, 0, 80)}, refused},
		"SCTP":                                {packet{Flow: to4(policy.SCTP, 80)}, passes},
		"SCTP header less a byte":             {packet{Flow: to4(policy.SCTP, 80), edit: cut(11)}, unparsable},
		"TCP ACK":                             {packet{Flow: to4(policy.TCP, 81), flags: 0x10}, refused},
		"TCP RST":                             {packet{Flow: to4(policy.TCP, 81), flags: 0x04}, refused},
		"TCP FIN":                             {packet{Flow: to4(policy.TCP, 81), flags: 0x01}, refused},
		"TCP in midstream":                    {packet{Flow: to4(policy.TCP, 80), flags: 0x18}, passes}, // as its SYN would
		"ICMP error for no flow":              {packet{Flow: to4(policy.ICMP, 0), icmp: 3}, refused},

		"IPv6":                                {packet{Flow: to6(policy.TCP, 80)}, passes},
		"IPv6, wrong port":                    {packet{Flow: to6(policy.TCP, 81)}, refused},
		"IPv6 hop-by-hop":                     {packet{Flow: to6(policy.TCP, 80), extensions: []extension{hop}}, passes},
		"IPv6 hop-by-hop, wrong port":         {packet{Flow: to6(policy.TCP, 81), extensions: []extension{hop}}, refused},
		"IPv6 all extensions":                 {packet{Flow: to6(policy.UDP, 80), extensions: []extension{hop, dest, route, auth, dest}}, passes},
		"IPv6 long extension":                 {packet{Flow: to6(policy.TCP, 80), extensions: []extension{{kind: 60, body: append([]byte{2}, make([]byte, 22)...)}}}, passes},
		"IPv6 long AH":                        {packet{Flow: to6(policy.TCP, 80), extensions: []extension{{kind: 51, body: append([]byte{4}, make([]byte, 22)...)}}}, passes},
		"IPv6 8 extensions":                   {packet{Flow: to6(policy.TCP, 80), extensions: chain(8, dest)}, passes},
		"IPv6 9 extensions":                   {packet{Flow: to6(policy.TCP, 80), extensions: chain(9, dest)}, unparsable},
		"IPv6 extension beyond the end":       {packet{Flow: to6(policy.TCP, 80), extensions: []extension{{kind: 60, body: []byte{200}}}}, unparsable},
		"IPv6 extension to the very end":      {packet{Flow: to6(policy.TCP, 80), extensions: []extension{dest}, edit: cut(8)}, unparsable},
		"IPv6 extension cut short":            {packet{Flow: to6(policy.TCP, 80), extensions: []extension{dest}, edit: cut(1)}, unparsable},
		"IPv6 atomic fragment":                {packet{Flow: to6(policy.TCP, 80), extensions: fragment(0)}, passes},
		"IPv6 atomic fragment, reserved bits": {packet{Flow: to6(policy.TCP, 81), extensions: fragment(6)}, refused},
		"IPv6 first fragment":                 {packet{Flow: to6(policy.TCP, 80), extensions: fragment(1)}, unparsable},
		"IPv6 later fragment":                 {packet{Flow: to6(policy.TCP, 80), extensions: fragment(8)}, unparsable},
		"IPv6 nothing after the header":       {packet{Flow: to6(59, 0), payload: []byte{}}, refused},
		"IPv6 TCP header less a byte":         {packet{Flow: to6(policy.TCP, 80), edit: cut(19)}, unparsable},
		"IPv6 length beyond the end":          {packet{Flow: to6(policy.TCP, 80), edit: drop(1)}, unparsable},
		"IPv6 length 0":                       {packet{Flow: to6(policy.TCP, 80), edit: poke(4, 0, 0)}, unparsable},
		"IPv6 of another version":             {packet{Flow: to6(policy.TCP, 80), edit: poke(0, 0x40)}, unparsable},
		"IPv6 from an IPv4-mapped address":    {packet{Flow: flow("::ffff:10.0.0.2", pod6, policy.TCP, 80)}, invalid},
		"IPv6 to an IPv4-mapped address":      {packet{Flow: flow(peer6, "::ffff:10.0.0.1", policy.TCP, 80)}, invalid},
		"neighbour discovery that is tracked": {packet{Flow: to6(policy.ICMPv6, 0), icmp: 135, hopLimit: 255}, refused},
		"ICMPv6 error for no flow":            {packet{Flow: to6(policy.ICMPv6, 0), icmp: 1}, refused},
		"ICMPv6 without a type":               {packet{Flow: to6(policy.ICMPv6, 0), payload: []byte{}, hopLimit: 255}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			sync(t, d, &compiler.Maps{})
			if got, want := run.passes(test.packet), test.want != invalid; got != want {
				t.Errorf("no pod isolated: passes %v, want %v", got, want)
			}
			sync(t, d, isolated(compiler.Audit, pods...))
			if got, want := run.passes(test.packet), test.want != invalid; got != want {
				t.Errorf("audited: passes %v, want %v", got, want)
			}
			sync(t, d, isolated(0, pods...))
			before := denied(t, d)
			if got, want := run.passes(test.packet), test.want == passes; got != want {
				t.Errorf("isolated: passes %v, want %v", got, want)
			}
			reason := map[int]events.Reason{
				refused: events.ReasonDefault, unparsable: events.ReasonUnparsable, invalid: events.ReasonInvalid,
			}[test.want]
			if n := denied(t, d)[reason] - before[reason]; test.want != passes && n != 1 {
				t.Errorf("counted %d for %v, want 1; all: %v", n, reason, denied(t, d))
			}
			sync(t, d, tiered(pods...))
			before = denied(t, d)
			if got, want := run.passes(test.packet), test.want == passes; got != want {
				t.Errorf("tiers: passes %v, want %v", got, want)
			}
			if n := denied(t, d)[reason] - before[reason]; (test.want == unparsable || test.want == invalid) && n != 1 {
				t.Errorf("tiers: counted %d for %v, want 1; all: %v", n, reason, denied(t, d))
			}
		})
	}
}

// denied are the counters of refusals, by reason.
func denied(t testing.TB, d *dataplane.Dataplane) map[events.Reason]uint64 {
	t.Helper()
	counters, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	out := map[events.Reason]uint64{}
	for _, c := range counters.Judged {
		if c.Verdict == events.Deny {
			out[c.Reason] += c.Packets
		}
	}
	return out
}

func TestHairpinComesFromThePodItself(t *testing.T) {
	self := flow("10.0.0.1", "10.0.0.1", policy.TCP, 81)
	d := newDataplane(t, dataplane.Options{})
	run := newRunner(t, d)
	tables := isolated(0, self.Source)
	sync(t, d, tables)
	if !run.passes(packet{Flow: self}) {
		t.Error("a pod was cut off from itself")
	}
	pod := tables.Pods[self.Source]
	pod.IfIndex = 4242 // not where these packets come in
	tables.Pods[self.Source] = pod
	sync(t, d, tables)
	if run.passes(packet{Flow: self}) {
		t.Error("another's packet passed with the pod's own address as its source")
	}
}
