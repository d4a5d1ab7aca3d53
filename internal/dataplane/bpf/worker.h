/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The memory that a message is read and learned in. */
#pragma once

/* A place of a resolved name, or of a pattern. */
struct place_key {
	__u64 owner; /* name: a hash of its text, of the type that was asked for, and of the pattern; or pattern */
	__u32 place;
	__u32 pad;
};

/* An address of a resolved name. */
struct place {
	struct address address;
	__u32 until; /* second of bpf_ktime_get_boot_ns */
	__u32 pattern;
};

/* A resolved name, in a place of a pattern. */
struct name {
	__u64 name;
	__u32 until;
	__u32 type;
	__u32 text_at; /* where the text begins; its bytes before that mean nothing */
	__u32 pad;
	__u8 text[TEXT_MAX]; /* as in struct domain_key, with a zero behind it */
};

/* Why an address that an answer led to was not learned. dataplane.MissReason. */
enum miss {
	MISS_OTHER_NAME = 1, /* no policy has the name that was asked for */
	MISS_UNTRUSTED,      /* the resolver is not trusted */
	MISS_LIMIT,          /* there was no room for the address, or for the name */
	MISS_EXPIRED,        /* its time is over: the agent writes this when it removes the address */
	MISS_HINT,           /* it is a hint of an HTTPS record */
};

/* An address that an answer led to and that was not learned. */
struct missed_address {
	__u32 at; /* second of bpf_ktime_get_boot_ns */
	enum miss why;
	__u32 text_at; /* as in struct name */
	__u8 text[TEXT_MAX];
};

/* What a message is worked on with. It is in a map: the stack is small. */
struct worker {
	__u32 taken;
	__u32 until;
	struct packet p;
	struct upper u;
	struct address server; /* the resolver as the client has it, before DNAT */
	struct pod pod;
	struct place place;
	struct address address;
	struct place_key key;
	struct place_key free; /* of the place to take */
	__u32 free_until;
	__u32 at;
	struct learned_address fresh;
	struct name name;
	struct missed_address missed;
	struct scratch s;
};

/* Messages that can be worked on at once on a CPU: the program may be interrupted where it runs for the node's own processes. */
#define WORKERS 2

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, WORKERS);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

static __always_inline struct worker *take_worker(void)
{
	for (__u32 i = 0; i < WORKERS; i++) {
		__u32 slot = i;
		struct worker *w = bpf_map_lookup_elem(&workers, &slot);

		if (w && __sync_val_compare_and_swap(&w->taken, 0, 1) == 0)
			return w;
	}
	return NULL;
}

static __always_inline void give_back(struct worker *w)
{
	__sync_lock_test_and_set(&w->taken, 0);
}

/* Reads the address of a record. False: it is IPv4-mapped, and would be taken for an IPv4 address. */
static __always_inline bool read_address(struct worker *w, __u32 at)
{
	at = (at + RECORD_FIXED) & MESSAGE_MASK;
	if (w->s.type != TYPE_A) {
		__builtin_memcpy(&w->address, &w->s.message[at], 16);
		return !is_mapped(&w->address);
	}
	w->address.word[0] = w->address.word[1] = 0;
	w->address.word[2] = MAPPED_PREFIX;
	__builtin_memcpy(&w->address.word[3], &w->s.message[at], 4);
	return true;
}
