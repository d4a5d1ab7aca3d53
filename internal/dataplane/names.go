package dataplane

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// textMax is the length of a text in a key of the map domains.
const textMax = len(bpf.FilterDomainKey{}.Text)

// encodeDomainKey turns a pattern into the text that the names which it matches begin with: see struct domain_key.
func encodeDomainKey(name string) bpf.FilterDomainKey {
	above, isWildcard := strings.CutPrefix(name, "*.")
	text := append([]byte(above), 0)
	slices.Reverse(text[:len(above)])
	text[len(above)] = '.'
	if !isWildcard {
		text = append(text, 0)
	}
	k := bpf.FilterDomainKey{Prefixlen: uint32(8 * len(text))}
	copy(k.Text[:], text)
	return k
}

func decodeDomainKey(k bpf.FilterDomainKey) string {
	text := slices.Clone(k.Text[:min(int(k.Prefixlen/8), textMax)])
	text, isName := bytes.CutSuffix(text, []byte{0})
	name := decodeText(text)
	if !isName {
		return "*." + name
	}
	return name
}

// decodeText is the name that a text stands for.
func decodeText(text []byte) string {
	text = bytes.TrimSuffix(slices.Clone(text), []byte{'.'})
	slices.Reverse(text)
	return string(text)
}

// decodeNameText is the name whose text begins at a place of a struct name and has a zero behind it.
func decodeNameText(text []byte, at uint32) string {
	text = text[min(int(at), textMax):]
	return decodeText(text[:max(0, len(text)-1)])
}

// canonicalDomain clears the bits behind the prefix.
func canonicalDomain(k bpf.FilterDomainKey) bpf.FilterDomainKey {
	whole := int(k.Prefixlen / 8)
	if whole < textMax {
		k.Text[whole] &= ^byte(0xff >> (k.Prefixlen % 8))
		clear(k.Text[whole+1:])
	}
	return k
}

func encodeDomain(d compiler.Domain) bpf.FilterDomain {
	out := bpf.FilterDomain{Own: uint32(d.Own)}
	for i, id := range d.Patterns {
		out.Patterns[i] = uint32(id)
	}
	return out
}

func decodeDomain(d bpf.FilterDomain) compiler.Domain {
	out := compiler.Domain{Own: compiler.PatternID(d.Own)}
	for i, id := range d.Patterns {
		out.Patterns[i] = compiler.PatternID(id)
	}
	return out
}

func encodeResolver(a netip.AddrPort) bpf.FilterResolverKey {
	return bpf.FilterResolverKey{Address: encodeAddr(a.Addr()), Port: a.Port()}
}

func decodeResolver(k bpf.FilterResolverKey) netip.AddrPort {
	return netip.AddrPortFrom(decodeAddr(k.Address), k.Port)
}

// unlearnable are networks whose addresses are never learned, whatever an answer says: with them a name could lead a pod to its node, to
// itself, or to the cloud's metadata. The program also looks at IPv4 addresses inside 64:ff9b::/96.
var unlearnable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
	// Metadata: Azure and Alibaba Cloud, and by IPv6 AWS and Google Cloud.
	netip.MustParsePrefix("168.63.129.16/32"), netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("fd00:ec2::254/128"), netip.MustParsePrefix("fd20:ce::254/128"),
}

// unlearnable returns all networks whose addresses are never learned.
func (o *NameOptions) unlearnable() []netip.Prefix { return slices.Concat(unlearnable, o.Unlearnable) }

// fillUnlearnable writes them into the map.
func (d *Dataplane) fillUnlearnable() error {
	keys := map[bpf.FilterNetworkKey]bool{}
	for _, p := range d.opts.Names.unlearnable() {
		keys[encodeNetwork(p.Masked())] = true
	}
	return addKeys(d.objs.Unlearnable, bpf.FilterMapUnlearnable, keys)
}

// firstBytes are those of the networks' addresses, a bit each, of IPv6 and of IPv4. The maps have IPv4 addresses as IPv4-mapped ones.
func firstBytes(networks []netip.Prefix) (out [2][4]uint64) {
	mapped := netip.PrefixFrom(netip.IPv6Unspecified(), 80)
	for _, p := range networks {
		family, first := 0, int(p.Masked().Addr().AsSlice()[0])
		if p.Addr().Is4() {
			family = 1
		} else if p.Overlaps(mapped) {
			out[1] = [4]uint64{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)}
		}
		for b := first; b < first+1<<max(0, 8-p.Bits()); b++ {
			out[family][b/64] |= 1 << (b % 64)
		}
	}
	return out
}

// NameOptions are about DNS names in policies.
type NameOptions struct {
	// On: the program learns the addresses of names from resolvers' answers. Without it rules with names match nothing.
	On bool
	// MinTTL and MaxTTL limit how long an address is learned for. By default 30 s and an hour.
	MinTTL, MaxTTL time.Duration
	// Unlearnable are networks whose addresses are never learned, besides those that lead to the node itself or to the cloud's metadata.
	Unlearnable []netip.Prefix
}

// nameVariables are the program's variables about names.
func (o *NameOptions) variables() map[string]any {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // it never fails
	return map[string]any{
		bpf.FilterVarNamesOn:  o.On,
		bpf.FilterVarHashSeed: binary.NativeEndian.Uint64(seed[:]),
		bpf.FilterVarTtlMin:   uint32(o.MinTTL / time.Second),
		bpf.FilterVarTtlMax:   uint32(o.MaxTTL / time.Second),

		bpf.FilterVarUnlearnableFirst: firstBytes(o.unlearnable()),
	}
}

// learnedMaps are the maps that the program fills from answers. They outlive the generation.
var learnedMaps = []string{bpf.FilterMapLearned, bpf.FilterMapPlaces, bpf.FilterMapNames, bpf.FilterMapAsked}

// inheritance is what a generation has of the one before it about names.
type inheritance struct {
	maps     map[string]*ebpf.Map
	patterns map[string]compiler.PatternID
	last     compiler.PatternID
}

func (i *inheritance) close() {
	for _, m := range i.maps {
		_ = m.Close()
	}
}

// spareNumbers are those that an earlier agent may still give to patterns before its generation is gone.
const spareNumbers = 4096

// inherit opens what the latest generation has learned. Maps of another shape, as of an agent with other sizes, are not inherited.
func inherit(bpffs string, spec *ebpf.CollectionSpec) (*inheritance, error) {
	out := &inheritance{maps: map[string]*ebpf.Map{}, patterns: map[string]compiler.PatternID{}}
	dirs, err := generations(bpffs)
	if err != nil || len(dirs) == 0 {
		return out, err
	}
	dir := dirs[len(dirs)-1]
	domains, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.FilterMapDomains), nil)
	if err != nil {
		return out, nil // a generation that did not know of names
	}
	defer func() { _ = domains.Close() }()
	for _, name := range learnedMaps {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		if err == nil {
			out.maps[name] = m
			err = spec.Maps[name].Compatible(m)
		}
		if err != nil {
			out.close()
			out.maps = map[string]*ebpf.Map{}
			return out, nil
		}
	}
	if err := out.readPatterns(domains); err != nil {
		out.close()
		return out, fmt.Errorf("read what an earlier agent has learned: %w", err)
	}
	return out, nil
}

func (i *inheritance) readPatterns(domains *ebpf.Map) error {
	err := readBatches(domains, func(keys []bpf.FilterDomainKey, values []bpf.FilterDomain) error {
		for j, v := range values {
			if v.Own != 0 {
				i.patterns[decodeDomainKey(keys[j])] = compiler.PatternID(v.Own)
				i.last = max(i.last, compiler.PatternID(v.Own))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = readBatches(i.maps[bpf.FilterMapLearned], func(_ []bpf.FilterAddress, values []bpf.FilterLearnedAddress) error {
		for _, v := range values {
			for _, slot := range v.Slots {
				i.last = max(i.last, compiler.PatternID(slot))
			}
		}
		return nil
	})
	i.last += spareNumbers
	return err
}

// LearnsNames reports whether the program learns the addresses of names.
func (d *Dataplane) LearnsNames() bool { return d.opts.Names.On }

// Patterns are the numbers under which an earlier generation learned, and which this one goes on with; and the last number that may be in use.
func (d *Dataplane) Patterns() (map[string]compiler.PatternID, compiler.PatternID) {
	return d.inherited.patterns, d.inherited.last
}

// PatternsOf are the patterns that an address was learned under, also those whose time is over: a live flow stays.
func (d *Dataplane) PatternsOf(addr netip.Addr) []compiler.PatternID {
	return d.patternsOf(addr, func(uint32) bool { return true })
}

// patternsOf are the patterns of an address for whose last second wanted holds.
func (d *Dataplane) patternsOf(addr netip.Addr, wanted func(until uint32) bool) []compiler.PatternID {
	var v bpf.FilterLearnedAddress
	if err := d.objs.Learned.Lookup(encodeAddr(addr), &v); err != nil {
		return nil
	}
	var out []compiler.PatternID
	for _, slot := range v.Slots {
		if slot != 0 && wanted(uint32(slot>>32)) {
			out = append(out, compiler.PatternID(slot))
		}
	}
	return out
}

// LearnedName is a name that was resolved, and its addresses.
type LearnedName struct {
	Name string
	// Patterns that it was learned under, by number.
	Pattern compiler.PatternID
	// Addresses with the time until which each holds.
	Addresses map[netip.Addr]time.Time
}

// bootSeconds is the clock of what is learned.
func bootSeconds() (uint32, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return uint32(ts.Sec), nil
}

// LearnedNames returns what the program has learned, also what has expired and was not removed yet.
func (d *Dataplane) LearnedNames() ([]LearnedName, error) {
	now, err := bootSeconds()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	at := func(until uint32) time.Time { return start.Add(time.Duration(int64(until)-int64(now)) * time.Second) }
	byID := map[uint64]*LearnedName{}
	var out []*LearnedName
	err = readBatches(d.objs.Names, func(keys []bpf.FilterPlaceKey, values []bpf.FilterName) error {
		for i := range values {
			v := &values[i]
			n := &LearnedName{
				Name: decodeNameText(v.Text[:], v.TextAt), Pattern: compiler.PatternID(keys[i].Owner), Addresses: map[netip.Addr]time.Time{},
			}
			byID[v.Name] = n
			out = append(out, n)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read BPF map %s: %w", bpf.FilterMapNames, err)
	}
	err = readBatches(d.objs.Places, func(keys []bpf.FilterPlaceKey, values []bpf.FilterPlace) error {
		for i := range values {
			if n := byID[keys[i].Owner]; n != nil {
				n.Addresses[decodeAddr(values[i].Address)] = at(values[i].Until)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read BPF map %s: %w", bpf.FilterMapPlaces, err)
	}
	names := make([]LearnedName, len(out))
	for i, n := range out {
		names[i] = *n
	}
	return names, nil
}

// followNames makes the program look at answers while some policy has names. The caller holds mu.
func (d *Dataplane) followNames() error {
	return d.objs.HasNames.Set(d.maps.domains.entries.Load() > 0)
}
