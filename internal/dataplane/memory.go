package dataplane

// Memory of an entry in a full map, with its share of the buckets and of the nodes between entries. It was measured by the charge of a memory cgroup
// (104 bytes and 145 to 165 bytes on Linux 6.18) and is rounded up.
const (
	hashEntryBytes   = 112
	trieEntryBytes   = 168
	repeatEntryBytes = 224

	// Of the maps about DNS names, by their keys and values and what the kernel has beside them.
	domainEntryBytes  = 560
	learnedEntryBytes = 240
	placeEntryBytes   = 112
	nameEntryBytes    = 360
	askedEntryBytes   = 144
	streamBytes       = 18 << 10
)

// MapMemory returns how many bytes the maps of one generation take when all of them are full. While one generation takes over from another there are two.
func (o Options) MapMemory() int64 {
	o = o.withDefaults()
	s := o.Sizes
	hash := int64(s.Pods) + int64(s.Addresses) + int64(s.Rows) + int64(s.revocations()) + int64(s.Interfaces) + int64(s.Hits)
	hash += int64(o.paces())
	trie := int64(s.Networks) + int64(s.Ports)
	repeats := 2 * (int64(s.Repeats) + int64(s.Records)) // of each, one that is counted in and one that is read
	names := int64(s.Learned)*(learnedEntryBytes+placeEntryBytes) + int64(s.Names)*(nameEntryBytes+askedEntryBytes) + int64(s.streams())*streamBytes
	if o.Names.On {
		names += int64(s.Domains)*domainEntryBytes + int64(s.Resolvers)*hashEntryBytes
	}
	return hash*hashEntryBytes + trie*trieEntryBytes + repeats*repeatEntryBytes + int64(s.EventBytes) + names
}
