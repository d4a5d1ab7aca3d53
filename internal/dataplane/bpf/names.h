/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What DNS names mean to the judge. Policies name patterns: a name, or `*.` and a name. The program learns
 * from resolvers' answers which addresses the names of each pattern have, before the client has the answer
 * (dns.h). The agent numbers the patterns; the numbers outlive policies and generations, and so does what was
 * learned under them.
 */
#pragma once

/* The patterns that one name can match; a longer list is cut off. */
#define PATTERNS_MAX 8

/* A name is 255 bytes on the wire and 254 as text. */
#define TEXT_MAX 256

/*
 * A name's text from its last byte to the first, with a dot for each label's length byte: www.example.com is
 * "moc.elpmaxe.www.". So a name and all names below it begin alike. A zero stands behind a name that stands
 * for itself alone.
 */
struct domain_key {
	__u32 prefixlen;
	__u8 text[TEXT_MAX];
};

/* The patterns that a name matches, of which the key is the longest part that any pattern has. */
struct domain {
	__u32 own; /* the key's own, or 0 */
	__u32 patterns[PATTERNS_MAX];
};

struct resolver_key {
	struct address address;
	__u16 port; /* in host order; 0: every port */
	__u16 pad;
};

/* How many patterns can share an address. */
#define SLOTS_MAX 16

/*
 * The patterns that an address was learned under. A slot is the pattern in the lower half, and in the upper
 * one the second of bpf_ktime_get_boot_ns until which it holds.
 *
 * The address stands at both ends. The kernel gives the memory of a deleted entry to another one, also while
 * it is read here. Whichever end it writes first, who has read a slot of the other entry then finds the
 * other's address at that end.
 */
struct learned_address {
	struct address address;
	__u64 slots[SLOTS_MAX];
	struct address again;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct domain_key);
	__type(value, struct domain);
} domains SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct resolver_key);
	__type(value, __u32);
} resolvers SEC(".maps");

/* The program writes it, and cannot wait for memory: it has all of its memory from the start. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, struct learned_address);
} learned SEC(".maps");

/* Set before the program is loaded: it learns nothing, and rules with names match nothing. */
volatile const bool names_on = false;

/* Some policy on this node has a name. */
volatile bool has_names = false;

/* compiler.NameClass: the class of a pattern's row. A set has one for each tier in which it has the pattern. */
#define NAME_CLASS 0x80000000u
#define NAME_CLASS_TIER 0x40000000u /* of the NetworkPolicy tier */

static __always_inline __u32 pattern_of(__u64 slot)
{
	return slot;
}

static __always_inline __u32 until_of(__u64 slot)
{
	return slot >> 32;
}

/* The decision of a set about the names of a pattern, in one tier. False: it has none about the port. */
__noinline bool look_up_pattern(__u32 protocol, __u32 port, __u32 set, __u32 class, struct decision *found)
{
	struct row_key key = { .set = set, .class = class };
	struct row row;

	if (!found || read_entry(&rows, &key, &row, sizeof(row)) != ENTRY_READ)
		return false;
	decide(protocol, port, &row, found);
	return found->action == ACTION_ALLOW;
}

/*
 * Replaces a decision about an address by that of a rule with names which comes before it.
 * Decision.names counts the set's rules with names, in the Admin and in the NetworkPolicy tier. In a decision
 * about an address these come before it; in one about a pattern they come before its rule.
 */
__noinline int apply_names(__u32 protocol, __u32 port, __u32 set, const struct address *peer, struct decision *found)
{
	const struct learned_address *entry;
	__u32 now, admin, other;
	struct decision named = {};

	if (!peer || !found)
		return 0;
	entry = bpf_map_lookup_elem(&learned, peer);
	if (!entry)
		return 0;
	admin = found->names[0];
	other = found->names[1];
	now = seconds_now();
	for (int i = 0; i < SLOTS_MAX; i++) {
		const __u64 slot = *(volatile __u64 *)&entry->slots[i];
		const __u32 class = NAME_CLASS | pattern_of(slot);

		if (until_of(slot) <= now)
			continue;
		keep_order();
		if (!is_same(&entry->address, peer) || !is_same(&entry->again, peer))
			return 0;
		if (admin && look_up_pattern(protocol, port, set, class, &named) && named.names[0] < admin) {
			admin = named.names[0];
			other = 0;
			*found = named;
		}
		if (other && look_up_pattern(protocol, port, set, class | NAME_CLASS_TIER, &named) && named.names[1] < other) {
			other = named.names[1];
			*found = named;
		}
	}
	return 0;
}
