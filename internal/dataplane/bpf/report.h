/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the program tells user space about a packet that it judged: counters, hits of rules, events. */
#pragma once

enum verdict {
	VERDICT_ACCEPT,
	VERDICT_DENY,
	VERDICT_AUDIT, /* what would have been VERDICT_DENY passes */
	VERDICTS,
};

/* Why the verdict is what it is. */
enum reason {
	REASON_RULE,       /* a rule of a policy */
	REASON_DEFAULT,    /* no rule matches, the pod is isolated */
	REASON_UNPARSABLE, /* the packet cannot be read, one end is isolated */
	REASON_INVALID,    /* no honest packet looks like this */
	REASON_REVOKED,    /* belongs to a flow that was cut */
	REASON_SPOOFED,    /* comes out of a pod's own interface with another's address */
	REASON_UNKNOWN,    /* nobody knows yet whose address is behind a workload's interface */
	REASONS,
};

struct judgement {
	__u32 rule;
	enum verdict verdict;
	enum reason reason;
	__u8 tier;
};

#define COUNTERS (2 * VERDICTS * REASONS)

/* Those after the verdicts' own. */
enum {
	COUNTER_LOST = COUNTERS, /* events that did not fit in the ring; their packets are counted as repeats */
	COUNTER_UNLISTED,        /* packets that are in no event and no repeat, because there is no room for another key */
	COUNTER_UNATTRIBUTED,    /* hits that had no room */
	COUNTERS_ALL,
};

enum event_mode {
	EVENTS_OFF,
	EVENTS_DENIED, /* VERDICT_DENY and VERDICT_AUDIT */
	EVENTS_ALL,    /* and VERDICT_ACCEPT of isolated pods */
};

/* What a verdict is a hit of: a rule, or the default of a set. */
struct hit_key {
	__u32 rule;
	__u32 set; /* where rule is 0 */
	__u32 verdict;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct hit_key);
	__type(value, __u64);
} hits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS_ALL);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Set before the program is loaded, so that the verifier removes what is not wanted. */
volatile const enum event_mode events_wanted = EVENTS_DENIED;
volatile const bool hits_wanted = true;

static __always_inline void count(__u32 index)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &index);

	if (n)
		*n += 1;
}

static __noinline void count_hit(__u32 rule, __u32 set, enum verdict verdict)
{
	struct hit_key key = { .rule = rule, .set = rule ? 0 : set, .verdict = verdict };
	__u64 *n = bpf_map_lookup_elem(&hits, &key), one = 1;

	if (!n) {
		if (!bpf_map_update_elem(&hits, &key, &one, BPF_NOEXIST))
			return;
		n = bpf_map_lookup_elem(&hits, &key); /* another CPU was first, or the map is full */
	}
	if (n)
		__sync_fetch_and_add(n, 1);
	else
		count(COUNTER_UNATTRIBUTED);
}

/* Has the packet in one event or one count, whatever comes. */
static __noinline void tell(const struct packet *p, struct repeat_key *k, const struct pod *pod)
{
	const struct address who = !pod ? (struct address){} : k->direction == EGRESS ? p->src : p->dst;
	__u32 slot = 0;
	void *counts = bpf_map_lookup_elem(&counting, &slot);

	if (!counts)
		return;
	if (event_pace && add(counts, k, p))
		return;
	if (may_tell(&who)) {
		begin(counts, k, p, pod);
		if (submit(p, k, pod))
			return;
		count(COUNTER_LOST);
	} else {
		if (!pod || k->direction == EGRESS)
			__builtin_memset(&k->dst, 0, sizeof(k->dst));
		if (!pod || k->direction == INGRESS)
			__builtin_memset(&k->src, 0, sizeof(k->src));
		k->rule = 0;
		k->dport = 0;
		k->protocol = 0;
		k->unlisted = 1;
		begin(counts, k, p, pod);
	}
	if (!add(counts, k, p))
		count(COUNTER_UNLISTED);
}

/* Counts, and tells where it was asked for. pod is NULL where the verdict is about the packet and not about a pod's policies. */
static __noinline void report(const struct packet *p, enum direction direction, const struct pod *pod, const struct judgement *j)
{
	struct repeat_key k = {
		.src = p->src,
		.dst = p->dst,
		.rule = j->rule,
		.set = pod ? pod->sets[direction & 1] : 0,
		.dport = p->dport,
		.protocol = p->protocol,
		.direction = direction,
		.verdict = j->verdict,
		.tier = j->tier,
		.reason = j->reason,
	};

	count((direction * VERDICTS + j->verdict) * REASONS + j->reason);
	if (hits_wanted && (j->reason == REASON_RULE || j->reason == REASON_DEFAULT))
		count_hit(j->rule, k.set, j->verdict);
	if (events_wanted == EVENTS_ALL || (events_wanted == EVENTS_DENIED && j->verdict != VERDICT_ACCEPT))
		tell(p, &k, pod);
}
