/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What the program reports to user space about a packet that it judged: counters, hits of rules, events. */
#pragma once

/* What became of a resolver's answer. dataplane.AnswerResult. */
enum answer {
	ANSWER_LEARNED,
	ANSWER_UNWANTED,  /* about a name that no policy has */
	ANSWER_EMPTY,     /* an error, or of a type without addresses, or without any */
	ANSWER_TRUNCATED, /* the client asks again over TCP */
	ANSWER_MALFORMED,
	ANSWER_TOO_LONG,
	ANSWER_UNASKED,   /* its client did not ask this, or not lately */
	ANSWER_FORGED,   /* did not come by the resolver's own interface */
	ANSWER_SHARED_INTERFACE, /* came by a workload's interface that is not known to be one pod's, such as a bridge */
	ANSWER_UNTRUSTED, /* from a resolver that is not trusted */
	ANSWER_OUT_OF_ORDER, /* a segment of a stream that is not the next one */
	ANSWER_BUSY,      /* there was no scratch memory: it was dropped, and the client asks again */
	ANSWERS,
};

/* events.Verdict. A verdict is added here and there, and nowhere else. */
enum verdict {
	VERDICT_ALLOW,
	VERDICT_DENY,
	VERDICT_AUDIT,       /* would have been VERDICT_DENY, and is not */
	VERDICT_AUDIT_ALLOW, /* would have been VERDICT_ALLOW if audited policies were enforced, and is not */
	VERDICTS,
};

/* events.Reason: why the verdict is what it is. A reason is added here and there, and nowhere else. */
enum reason {
	REASON_RULE,       /* a rule of a policy decided */
	REASON_DEFAULT,    /* no rule matches and the pod is isolated */
	REASON_UNPARSABLE, /* the packet cannot be read and one end is isolated */
	REASON_INVALID,    /* no honest packet looks like this */
	REASON_REVOKED,    /* belongs to a flow that was cut */
	REASON_SPOOFED,    /* comes out of a pod's own interface with an address of another pod */
	REASON_UNKNOWN,    /* an address behind a workload's interface that belongs to no known pod */
	REASON_ENCAPSULATED, /* a tunnel's packet from what is no end of a tunnel */
	REASONS,
};

struct finding {
	__u32 rule;
	enum verdict verdict;
	enum reason reason;
	__u8 tier;
	__u8 place; /* of the pod's set that was asked */
	__u8 pad[2];
};

#define COUNTERS (2 * VERDICTS * REASONS)

/* Counters that come after those of the verdicts. */
enum {
	COUNTER_LOST = COUNTERS, /* events that did not fit in the ring; their packets are counted as repeats */
	COUNTER_UNLISTED,        /* packets that are in no event and no repeat, because there is no room for another key */
	COUNTER_UNATTRIBUTED,    /* hits that had no room */
	COUNTER_UNRECORDED,      /* packets that are in no record, because there is no room for another key */
	COUNTER_LEARNED,         /* addresses of names that were learned, or prolonged */
	COUNTER_UNLEARNABLE,     /* addresses of names that are never learned */
	COUNTER_DISPLACED,       /* addresses or names that lost their place to a newer one of the same name or pattern */
	COUNTER_NO_ROOM,         /* addresses, or names with all of theirs, for which a map has no room */
	COUNTER_ANSWERS,         /* by enum answer */
	COUNTERS_ALL = COUNTER_ANSWERS + ANSWERS,
};

enum event_mode {
	EVENTS_OFF,
	EVENTS_DENIED, /* all verdicts but VERDICT_ALLOW */
	EVENTS_ALL,    /* and VERDICT_ALLOW of isolated pods */
};

/* What a verdict counts for: a rule, or the default of a set. */
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

static __always_inline void fill_key(struct repeat_key *k, const struct packet *p, enum direction direction, const struct pod *pod,
				     const struct finding *f)
{
	k->src = p->src;
	k->dst = p->dst;
	k->rule = f->rule;
	k->set = pod ? pod->sets[f->place & (SETS - 1)] : 0;
	k->dport = p->dport;
	k->protocol = p->protocol;
	k->direction = direction;
	k->verdict = f->verdict;
	k->tier = f->tier;
	k->reason = f->reason;
	k->flags = 0;
	k->port = 0;
}

/* Puts the packet into one event or into one count. */
static __noinline void report_event(const struct packet *p, struct repeat_key *k, const struct pod *pod)
{
	const struct address end = whose(p, k, pod);
	__u32 slot = 0;
	void *counts = bpf_map_lookup_elem(&counting, &slot);

	if (!counts)
		return;
	if (event_pace && add_to_count(counts, k, p))
		return;
	if (may_make_event(&end)) {
		begin_count(counts, k, p, pod);
		if (submit_event(p, k, pod))
			return;
		count(COUNTER_LOST);
	} else {
		sum_up(k, p, pod);
		begin_count(counts, k, p, pod);
	}
	if (!add_to_count(counts, k, p))
		count(COUNTER_UNLISTED);
}

#include "record.h"

/* Counts the packet, and makes an event of it where events are wanted. */
__noinline int count_and_report(const struct packet *p, enum direction direction, const struct pod *pod, const struct finding *f)
{
	struct repeat_key k;

	if (!p || !f)
		return 0;
	fill_key(&k, p, direction, pod, f);
	count((direction * VERDICTS + f->verdict) * REASONS + f->reason);
	if (hits_wanted && (f->reason == REASON_RULE || f->reason == REASON_DEFAULT))
		count_hit(f->rule, k.set, f->verdict);
	if (events_wanted == EVENTS_ALL || (events_wanted == EVENTS_DENIED && f->verdict != VERDICT_ALLOW))
		report_event(p, &k, pod);
	return 0;
}

/*
 * Counts the packet, and makes an event and a record of it where these are wanted. pod is NULL where no pod's
 * policies decided.
 */
static __always_inline void report(const struct packet *p, enum direction direction, const struct pod *pod, const struct finding *f)
{
	count_and_report(p, direction, pod, f);
	if (records_wanted)
		record(p, pod, f, direction);
}
