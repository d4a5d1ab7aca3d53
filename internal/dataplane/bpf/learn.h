/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Writing what an answer teaches. Space is limited so that no name takes another's: each resolved name has
 * NAME_PLACES places for addresses of each family, and each pattern PATTERN_PLACES places for resolved names. What
 * is new at a limit takes the place of what expires first under the same limit. A full map takes nothing new, and
 * loses nothing.
 *
 * A place is found by a hash, in PROBES steps, so that there is no list to lock.
 */
#pragma once

#define NAME_PLACES 1024
#define PATTERN_PLACES 256
#define PROBES 16

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct place_key);
	__type(value, struct place);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct place_key);
	__type(value, struct name);
} names SEC(".maps");

/* Networks whose addresses are never learned: an answer could lead a pod to its node, or to itself. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, __u8);
} unlearnable SEC(".maps");

/*
 * The first bytes of these networks' addresses, a bit each, of IPv6 and of IPv4. Most addresses begin otherwise:
 * they need no look-up. Set before the program is loaded.
 */
volatile const __u64 unlearnable_first[2][4] = {};

/* Seconds. Set before the program is loaded. */
volatile const __u32 ttl_min = 30;
volatile const __u32 ttl_max = 3600;

/* NAT64's prefix (RFC 6052), behind which there is an IPv4 address. */
static __always_inline bool is_nat64(const struct address *a)
{
	return a->word[0] == bpf_htonl(0x0064ff9b) && !a->word[1] && !a->word[2];
}

static __always_inline bool is_in_unlearnable(const struct address *a)
{
	const bool is_v4 = is_mapped(a);
	const __u8 first = *(const __u8 *)&a->word[is_v4 ? 3 : 0];
	struct network_key key;

	if (!(unlearnable_first[is_v4][first / 64] >> first % 64 & 1))
		return false;
	key.prefixlen = 128;
	key.addr = *a;
	return bpf_map_lookup_elem(&unlearnable, &key);
}

static __always_inline bool is_unlearnable(const struct address *a)
{
	struct address inner = { .word = { 0, 0, MAPPED_PREFIX, a->word[3] } };

	return is_in_unlearnable(a) || (is_nat64(a) && is_in_unlearnable(&inner));
}

/* Takes a pattern from an address, unless another name of the pattern holds it longer. */
__noinline int forget_address(const struct address *a, __u32 pattern, __u32 until)
{
	const __u64 slot = (__u64)until << 32 | pattern;
	bool is_empty = true;
	struct learned_address *entry;

	if (!a)
		return 0;
	entry = bpf_map_lookup_elem(&learned, a);
	if (!entry)
		return 0;
	for (int i = 0; i < SLOTS_MAX; i++) {
		if (*(volatile __u64 *)&entry->slots[i] == slot)
			__sync_val_compare_and_swap(&entry->slots[i], slot, 0);
		is_empty = is_empty && !*(volatile __u64 *)&entry->slots[i];
	}
	if (is_empty)
		bpf_map_delete_elem(&learned, a);
	return 0;
}

/* Makes an entry for an address. False: there is one, or no room for it. */
static __always_inline bool add_address(struct worker *w, __u64 slot)
{
	w->fresh.address = w->address;
	w->fresh.again = w->address;
	w->fresh.slots[0] = slot;
	return !bpf_map_update_elem(&learned, &w->address, &w->fresh, BPF_NOEXIST);
}

/*
 * Lets an address hold under a pattern until w->until. An address with a new place is probably new itself: it is
 * looked up only if it is not. False: there is no room for it.
 */
__noinline bool learn_address(struct worker *w)
{
	struct learned_address *entry;
	__u64 slot, fresh;

	if (!w)
		return false;
	fresh = (__u64)w->until << 32 | w->s.pattern;
	entry = w->free_until == ~0u ? bpf_map_lookup_elem(&learned, &w->address) : NULL;
	if (!entry) {
		if (add_address(w, fresh))
			return true;
		entry = bpf_map_lookup_elem(&learned, &w->address); /* it was there, another CPU was first, or the map is full */
		if (!entry)
			return false;
	}
	for (int i = 0; i < SLOTS_MAX; i++) {
		slot = *(volatile __u64 *)&entry->slots[i];
		if (slot && pattern_of(slot) == w->s.pattern) {
			if (until_of(slot) >= w->until || __sync_val_compare_and_swap(&entry->slots[i], slot, fresh) == slot)
				return true;
		}
	}
	for (int i = 0; i < SLOTS_MAX; i++) {
		slot = *(volatile __u64 *)&entry->slots[i];
		if (until_of(slot) <= w->s.now && __sync_val_compare_and_swap(&entry->slots[i], slot, fresh) == slot)
			return true;
	}
	return false;
}

/* Makes a step towards the place of an address of a name: false when it is found, or a free one is. */
static __always_inline bool probe_place(struct worker *w, __u64 hash)
{
	struct place *place;

	w->key.place = (hash + w->at * (hash >> 32 | 1)) & (NAME_PLACES - 1);
	place = bpf_map_lookup_elem(&places, &w->key);
	w->at++;
	if (!place || place->until < w->free_until) {
		w->free = w->key;
		w->free_until = place ? place->until : 0;
	}
	if (!place)
		return false;
	if (!is_same(&place->address, &w->address))
		return true;
	if (place->until < w->until)
		place->until = w->until;
	w->free_until = ~0u;
	return false;
}

/* Finds or takes a place for w->address of the name w->s.name. False: there is no room for it. */
__noinline bool hold_place(struct worker *w)
{
	struct place *other;
	__u64 hash;

	if (!w)
		return false;
	hash = mix(mix(hash_seed, (__u64)w->address.word[0] << 32 | w->address.word[1]),
		   (__u64)w->address.word[2] << 32 | w->address.word[3]);
	w->key.owner = w->s.name;
	w->at = 0;
	w->free_until = ~0u - 1;
	for (int i = 0; i < PROBES; i++)
		if (!probe_place(w, hash))
			break;
	if (w->free_until == ~0u)
		return true;
	if (w->free_until) {
		other = bpf_map_lookup_elem(&places, &w->free);
		if (other) {
			w->place.address = other->address;
			forget_address(&w->place.address, w->s.pattern, w->free_until);
			if (w->free_until > w->s.now)
				note_missed(w, &w->place.address, MISS_LIMIT);
			count(COUNTER_DISPLACED);
		}
	}
	w->place.address = w->address;
	w->place.until = w->until;
	w->place.pattern = w->s.pattern;
	return !bpf_map_update_elem(&places, &w->free, &w->place, BPF_ANY);
}

/* Takes away one place of the name that loses its place. */
static long forget_place(__u32 i, struct worker **context)
{
	struct worker *w = *context;
	struct place *place;

	w->key.owner = w->name.name;
	w->key.place = i;
	place = bpf_map_lookup_elem(&places, &w->key);
	if (!place)
		return 0;
	w->place.address = place->address;
	forget_address(&w->place.address, w->s.pattern, place->until);
	bpf_map_delete_elem(&places, &w->key);
	return 0;
}

/* In place: with a message over TCP the chain of calls has its eight frames. */
static __always_inline void forget_name(struct worker *w)
{
	bpf_loop(NAME_PLACES, forget_place, &w, 0);
	count(COUNTER_DISPLACED);
}

static __always_inline bool probe_name(struct worker *w)
{
	struct name *name;

	w->key.place = (w->s.name + w->at * (w->s.name >> 32 | 1)) & (PATTERN_PLACES - 1);
	name = bpf_map_lookup_elem(&names, &w->key);
	w->at++;
	if (!name || name->until < w->free_until) {
		w->free = w->key;
		w->free_until = name ? name->until : 0;
		w->name.name = name ? name->name : 0;
	}
	if (!name)
		return false;
	if (name->name != w->s.name)
		return true;
	if (name->until < w->until)
		name->until = w->until;
	w->free_until = ~0u;
	return false;
}

/* Finds or takes a place of the pattern for the name that the answer is about. False: there is no room for it. */
__noinline bool hold_name(struct worker *w)
{
	if (!w)
		return false;
	w->key.owner = w->s.pattern;
	w->at = 0;
	w->free_until = ~0u - 1;
	for (int i = 0; i < PROBES; i++)
		if (!probe_name(w))
			break;
	if (w->free_until == ~0u)
		return true;
	if (w->free_until)
		forget_name(w);
	w->name.name = w->s.name;
	w->name.until = w->until;
	w->name.type = w->s.type;
	w->name.text_at = w->s.text_at;
	__builtin_memcpy(w->name.text, &w->s.text[4], TEXT_MAX);
	return !bpf_map_update_elem(&names, &w->free, &w->name, BPF_ANY);
}

/* Reads the address and the time of a record. False: it is not to be learned. */
static __always_inline bool read_record(struct worker *w, __u32 at)
{
	__u32 ttl = four_bytes_at(&w->s, at + 4);

	if (ttl >> 31) /* RFC 2181, section 8 */
		ttl = 0;
	w->until = w->s.now + 1 + (ttl < ttl_min ? ttl_min : ttl > ttl_max ? ttl_max : ttl);
	return read_address(w, at) && !is_unlearnable(&w->address);
}

/* Learns one record under the pattern at hand. */
static long learn_record(__u32 i, struct worker **context)
{
	struct worker *w = *context;

	if (i >= w->s.records)
		return 1;
	if (!read_record(w, w->s.record[i & (RECORDS_MAX - 1)])) {
		count(COUNTER_UNLEARNABLE);
		return 0;
	}
	if (hold_place(w) && learn_address(w)) {
		count(COUNTER_LEARNED);
	} else {
		count(COUNTER_NO_ROOM);
		note_missed(w, &w->address, MISS_LIMIT);
	}
	return 0;
}

/* Learns what read_records has found, under each pattern of the name. */
__noinline int learn_records(struct worker *w)
{
	if (!w)
		return 0;
	w->s.now = seconds_now();
	for (int i = 0; i < PATTERNS_MAX; i++) {
		w->s.pattern = w->s.patterns[i];
		if (!w->s.pattern)
			break;
		w->s.name = mix(w->s.hash, w->s.pattern);
		read_record(w, w->s.record[0]); /* for its time: the records of one name and type have the same (RFC 2181, section 5.2) */
		if (hold_name(w)) {
			bpf_loop(RECORDS_MAX, learn_record, &w, 0);
		} else {
			count(COUNTER_NO_ROOM);
			note_records(w, MISS_LIMIT);
		}
	}
	return 0;
}
