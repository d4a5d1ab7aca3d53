/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Reading entries of the maps that the agent may be writing to. */
#pragma once

/* Goes up when the agent begins a write to a map and when that write ends: odd in between. */
volatile __u32 writes = 0;

/* Set by a test: one in so many reads of an entry is held up, as an interrupt would. 0: none. */
volatile const __u32 held_up_one_in = 0;

#define HOLD_UP_TURNS 20000 /* some 20 us, in which the agent makes several writes */

static int turn(__u32 index, void *context)
{
	(void)index;
	(void)context;
	return 0;
}

static __always_inline void hold_up(void)
{
	if (held_up_one_in && bpf_get_prandom_u32() % held_up_one_in == 0)
		bpf_loop(HOLD_UP_TURNS, turn, NULL, 0);
}

enum entry {
	ENTRY_ABSENT,
	ENTRY_READ,
	ENTRY_CHANGING, /* the agent wrote to the maps all the time */
};

/*
 * The tries of read_entry. Each further one needs that the program was held up for two writes, several
 * microseconds, during the one before it.
 */
#define TRIES 8

/*
 * Copies an entry of a hash map that the agent may be writing to.
 *
 * The kernel gives the memory of an entry that is replaced or deleted to the next one that is written, also
 * while a program still reads it. It does not tell the program: the same memory may even be back in its old
 * place by the time that the program looks again. But one write cannot do this. It takes memory that was free
 * before it began, and what it frees is there for the next. So what was looked up and copied is the key's own,
 * and no mix of two values, unless a second write began before the copy was complete.
 */
static __always_inline enum entry try_entry(void *map, const void *key, void *value, __u32 size)
{
	const __u32 before = writes;
	void *entry;

	keep_order();
	entry = bpf_map_lookup_elem(map, key);
	hold_up();
	if (entry)
		__builtin_memcpy(value, __builtin_assume_aligned(entry, 4), size);
	hold_up();
	keep_order();
	/* An odd number is that of a write that had begun before: it is the one that there may be. */
	if (writes - (before & ~1u) > 2)
		return ENTRY_CHANGING;
	return entry ? ENTRY_READ : ENTRY_ABSENT;
}

static __always_inline enum entry read_entry(void *map, const void *key, void *value, __u32 size)
{
	__builtin_memset(value, 0, size);
	for (int i = 0; i < TRIES; i++) {
		const enum entry entry = try_entry(map, key, value, size);

		if (entry != ENTRY_CHANGING)
			return entry;
	}
	return ENTRY_CHANGING;
}

/* The class of an address. False: it cannot be read. */
static __always_inline bool find_class(const struct address *a, __u32 *class)
{
	struct network_key key = { .prefixlen = 128, .addr = *a };
	const enum entry address = read_entry(&addresses, a, class, sizeof(*class));
	__u32 *network;

	if (address != ENTRY_ABSENT)
		return address == ENTRY_READ;
	network = bpf_map_lookup_elem(&networks, &key);
	*class = network ? *network : 0;
	return true;
}

/*
 * Reads the pod with the address. False: there is none. A pod that cannot be read is denied everything.
 *
 * This function and others are not static: the verifier checks each of these once, whatever its callers have done
 * before. A static one it checks again for every state of every caller.
 */
__noinline bool read_pod(const struct address *a, struct pod *pod)
{
	enum entry entry;

	if (!a || !pod)
		return false;
	entry = read_entry(&pods, a, pod, sizeof(*pod));
	if (entry == ENTRY_CHANGING)
		*pod = (struct pod){ .sets = { SET_DENY_ALL, SET_DENY_ALL } };
	return entry != ENTRY_ABSENT;
}

/* The pod with the address, or NULL. Nearly always the first try reads it, and saves a call. */
static __always_inline const struct pod *find_pod(const struct address *a, struct pod *pod)
{
	__builtin_memset(pod, 0, sizeof(*pod));
	switch (try_entry(&pods, a, pod, sizeof(*pod))) {
	case ENTRY_READ:
		return pod;
	case ENTRY_ABSENT:
		return NULL;
	default:
		return read_pod(a, pod) ? pod : NULL;
	}
}

/* Reads the interface with the index. False: it is not known. One that cannot be read is a pod's own. */
__noinline bool read_interface(__u32 ifindex, struct interface *found)
{
	enum entry entry;

	if (!found)
		return false;
	entry = read_entry(&interfaces, &ifindex, found, sizeof(*found));
	if (entry == ENTRY_CHANGING)
		*found = (struct interface){ .kind = INTERFACE_POD };
	return entry != ENTRY_ABSENT;
}

/* As read_interface; as find_pod, it mostly needs no call. */
static __always_inline bool find_interface(__u32 ifindex, struct interface *found)
{
	enum entry entry;

	__builtin_memset(found, 0, sizeof(*found));
	entry = try_entry(&interfaces, &ifindex, found, sizeof(*found));
	return entry == ENTRY_CHANGING ? read_interface(ifindex, found) : entry == ENTRY_READ;
}

/* Whether an interface is one of the pod's own. */
static __noinline bool is_behind(__u32 ifindex, const struct pod *pod)
{
	struct interface known;

	if (pod->ifindex == ifindex)
		return true;
	return pod->ifindex && find_interface(ifindex, &known) && known.kind == INTERFACE_POD && known.pod == pod->ifindex;
}

/* The decision of a row about a port. */
static __always_inline void decide(__u8 protocol, __u16 dport, const struct row *row, struct decision *found)
{
	struct port_key port = {
		.prefixlen = PORT_KEY_EXACT,
		.port_list = row->port_list,
		.protocol = protocol,
		.port = bpf_htons(dport),
	};
	struct decision *decision;

	*found = row->default_decision;
	if (!row->port_list)
		return;
	decision = bpf_map_lookup_elem(&ports, &port);
	if (decision)
		*found = *decision;
}
