/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Events: what the flow log learns about verdicts. The first packet of a kind makes an event; the program
 * counts those that follow under its key, until user space reads the counts. Each pod may make a number of
 * events per second; the rest is one count for the pod. So a flood costs two look-ups per packet, and every
 * packet is in one event or one count.
 */
#pragma once

/*
 * The verdict for one end about one packet. Only this program and the agent that loaded it use this form: it
 * is no API.
 */
struct event {
	__u64 time;                  /* bpf_ktime_get_ns */
	struct address src, dst;     /* as judged: after DNAT, before SNAT */
	struct address original_dst; /* before DNAT; zero where conntrack has no entry */
	__u32 rule;
	__u32 set;
	__u32 pod_flags;
	__u32 ifindex; /* of the interface that the packet came in by */
	__u32 bytes;
	__u16 sport, dport;
	__u16 original_dport;
	__u8 protocol;
	__u8 direction; /* enum direction: the source was judged for EGRESS, the destination for INGRESS */
	__u8 verdict;
	__u8 tier;
	__u8 reason;
	__u8 pad;
};

/* What packets that are counted together have in common. A sender's own count has only the sender. */
struct repeat_key {
	struct address src, dst;
	__u32 rule;
	__u32 set;
	__u16 dport;
	__u8 protocol;
	__u8 direction;
	__u8 verdict;
	__u8 tier;
	__u8 reason;
	__u8 flags; /* enum repeat_flags */
	__u32 port; /* of the sender's own count, if it is not known to be a pod */
};

enum repeat_flags {
	REPEAT_UNLISTED = 1, /* the sender's own count */
	/* Of records only: */
	REPEAT_CONTINUES = 2, /* the packets belong to a connection that conntrack has forgotten, and open none */
	REPEAT_REPLY = 4,     /* and come from its server */
	REPEAT_WOULD_BE = 8,  /* as if audited policies were enforced: another record counts the same packets */
};

struct repeat {
	__u64 packets, bytes;
	__u64 first, last; /* bpf_ktime_get_ns, to a tick */
	struct address original_dst;
	__u32 pod_flags;
	__u32 ifindex;
	__u16 original_dport;
	__u16 sport; /* of the first packet, in records */
	__u8 pad[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} events SEC(".maps");

struct repeats {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(key_size, sizeof(struct repeat_key));
	__uint(value_size, sizeof(struct repeat));
};

/*
 * User space puts another map into the one slot and then reads the former one, in which no packet is counted
 * any more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, struct repeats);
} counting SEC(".maps");

/*
 * When the events of a pod so far would have come at an even pace. Packets that no pod's policies decided are
 * their sender's: its own, if it is a pod, or those of the interface that they came in by, as ff..:<index>.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, __u64);
} paces SEC(".maps");

/*
 * Nanoseconds between two events of a pod in the long run, 0 for no limit, and how far a pod may be ahead of
 * that.
 */
volatile const __u64 event_pace = 0;
volatile const __u64 event_ahead = 0;

/* Reads from conntrack where the sender of the packet sent it. */
static __noinline void read_original(const struct packet *p, struct address *dst, __u16 *dport)
{
	__builtin_memset(dst, 0, sizeof(*dst));
	*dport = 0;
	if (!p->conntrack || !bpf_core_type_exists(struct nf_conn))
		return;

	struct nf_conn *ct = bpf_rdonly_cast((void *)p->conntrack, bpf_core_type_id_kernel(struct nf_conn));

	*dst = address_of(p->family, &ct->tuplehash[0].tuple.dst.u3);
	/*
	 * Where the protocol has no ports conntrack keeps other things here, such as an ICMP type and code.
	 */
	if (p->dport)
		*dport = bpf_ntohs(ct->tuplehash[0].tuple.dst.u.all);
}

/* Whose pace an event takes. */
static __always_inline struct address whose(const struct packet *p, const struct repeat_key *k, const struct pod *pod)
{
	if (pod)
		return k->direction == EGRESS ? p->src : p->dst;
	if (p->from_pod)
		return p->src;
	return (struct address){ .word = { ~0u, 0, 0, p->port } };
}

/* The generic cell rate algorithm: a token bucket in one number. */
static __noinline bool may_make_event(const struct address *end)
{
	__u64 now = recent_ns(), due, next, *pace;

	if (!event_pace)
		return true;
	pace = bpf_map_lookup_elem(&paces, end);
	if (!pace) {
		next = now + event_pace;
		bpf_map_update_elem(&paces, end, &next, BPF_ANY);
		return true;
	}
	for (int i = 0; i < 4; i++) { /* once more where another CPU was first */
		due = *(volatile __u64 *)pace;
		next = (due > now ? due : now) + event_pace;
		if (next - now > event_ahead)
			return false;
		if (__sync_val_compare_and_swap(pace, due, next) == due)
			return true;
	}
	return false;
}

static __noinline void fill_event(struct event *e, const struct packet *p, const struct repeat_key *k, const struct pod *pod)
{
	e->time = bpf_ktime_get_ns();
	e->src = k->src;
	e->dst = k->dst;
	read_original(p, &e->original_dst, &e->original_dport);
	e->rule = k->rule;
	e->set = k->set;
	e->pod_flags = pod ? pod->flags : 0;
	e->ifindex = p->ifindex;
	e->bytes = p->len;
	e->sport = p->sport;
	e->dport = k->dport;
	e->protocol = k->protocol;
	e->direction = k->direction;
	e->verdict = k->verdict;
	e->tier = k->tier;
	e->reason = k->reason;
	e->pad = 0;
}

static __always_inline bool submit_event(const struct packet *p, const struct repeat_key *k, const struct pod *pod)
{
	struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e)
		return false;
	fill_event(e, p, k, pod);
	bpf_ringbuf_submit(e, 0);
	return true;
}

/* Begins a count under a key, unless there is one. */
static __noinline void begin_count(void *counts, const struct repeat_key *k, const struct packet *p, const struct pod *pod)
{
	struct repeat fresh = { .pod_flags = pod ? pod->flags : 0, .ifindex = p->ifindex };

	if (!(k->flags & REPEAT_UNLISTED))
		read_original(p, &fresh.original_dst, &fresh.original_dport);
	bpf_map_update_elem(counts, k, &fresh, BPF_NOEXIST);
}

static __noinline void count_repeat(struct repeat *r, __u32 bytes)
{
	r->last = recent_ns();
	if (!r->first)
		r->first = r->last;
	__sync_fetch_and_add(&r->packets, 1);
	__sync_fetch_and_add(&r->bytes, bytes);
}

static __always_inline bool add_to_count(void *counts, const struct repeat_key *k, const struct packet *p)
{
	struct repeat *r = bpf_map_lookup_elem(counts, k);

	if (r)
		count_repeat(r, p->len);
	return r;
}

/* Leaves of a key what all packets have in common that count for one sender. */
static __always_inline void sum_up(struct repeat_key *k, const struct packet *p, const struct pod *pod)
{
	if (!pod || k->direction == EGRESS)
		__builtin_memset(&k->dst, 0, sizeof(k->dst));
	if (pod ? k->direction == INGRESS : !p->from_pod)
		__builtin_memset(&k->src, 0, sizeof(k->src));
	if (!pod && !p->from_pod)
		k->port = p->port;
	k->rule = 0;
	k->dport = 0;
	k->protocol = 0;
	k->flags |= REPEAT_UNLISTED;
}
