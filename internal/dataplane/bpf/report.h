/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counters and events: what the program tells user space about a packet that it judged. */
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
#define COUNTER_LOST COUNTERS /* the last one: events that did not fit in the ring */

enum event_mode {
	EVENTS_OFF,
	EVENTS_DENIED, /* VERDICT_DENY and VERDICT_AUDIT */
	EVENTS_ALL,    /* and VERDICT_ACCEPT of isolated pods */
};

/* One end's verdict about one packet. Its form is between this program and the agent that loaded it, no API. */
struct event {
	__u64 time;                  /* bpf_ktime_get_ns */
	struct address src, dst;     /* as judged: after DNAT, before SNAT */
	struct address original_dst; /* before DNAT; zero where conntrack has no entry */
	__u32 rule;
	__u32 set;
	__u32 pod_flags;
	__u32 ifindex; /* that the packet came in by */
	__u16 sport, dport;
	__u16 original_dport;
	__u8 protocol;
	__u8 direction; /* enum direction: the source was judged for EGRESS, the destination for INGRESS */
	__u8 verdict;
	__u8 tier;
	__u8 reason;
	__u8 pad[5];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS + 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* Set before the program is loaded, so that the verifier removes what is not wanted. */
volatile const enum event_mode events_wanted = EVENTS_DENIED;

static __always_inline void count(__u32 index)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &index);

	if (n)
		*n += 1;
}

/* What conntrack knows of the packet as its sender sent it. */
static __noinline void add_original(struct event *e, const struct packet *p)
{
	__builtin_memset(&e->original_dst, 0, sizeof(e->original_dst));
	e->original_dport = 0;
	if (!p->conntrack || !bpf_core_type_exists(struct nf_conn))
		return;

	struct nf_conn *ct = bpf_rdonly_cast((void *)p->conntrack, bpf_core_type_id_kernel(struct nf_conn));

	if (p->family == NFPROTO_IPV4) {
		e->original_dst.word[2] = MAPPED_PREFIX;
		e->original_dst.word[3] = ct->tuplehash[0].tuple.dst.u3.all[0];
	} else {
		e->original_dst.word[0] = ct->tuplehash[0].tuple.dst.u3.all[0];
		e->original_dst.word[1] = ct->tuplehash[0].tuple.dst.u3.all[1];
		e->original_dst.word[2] = ct->tuplehash[0].tuple.dst.u3.all[2];
		e->original_dst.word[3] = ct->tuplehash[0].tuple.dst.u3.all[3];
	}
	/* Where the protocol has no ports conntrack keeps other things here, such as an ICMP type and code. */
	if (p->dport)
		e->original_dport = bpf_ntohs(ct->tuplehash[0].tuple.dst.u.all);
}

/* Counts, and tells where it was asked for. pod is NULL where the verdict is about the packet and not about a pod's policies. */
static __noinline void report(const struct packet *p, enum direction direction, const struct pod *pod, const struct judgement *j)
{
	count((direction * VERDICTS + j->verdict) * REASONS + j->reason);
	if (events_wanted == EVENTS_OFF || (events_wanted == EVENTS_DENIED && j->verdict == VERDICT_ACCEPT))
		return;

	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		count(COUNTER_LOST);
		return;
	}
	e->time = bpf_ktime_get_ns();
	e->src = p->src;
	e->dst = p->dst;
	add_original(e, p);
	e->rule = j->rule;
	e->set = pod ? pod->sets[direction & 1] : 0;
	e->pod_flags = pod ? pod->flags : 0;
	e->ifindex = p->ifindex;
	e->sport = p->sport;
	e->dport = p->dport;
	e->protocol = p->protocol;
	e->direction = direction;
	e->verdict = j->verdict;
	e->tier = j->tier;
	e->reason = j->reason;
	__builtin_memset(e->pad, 0, sizeof(e->pad));
	bpf_ringbuf_submit(e, 0);
}
