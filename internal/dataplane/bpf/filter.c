//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The judge of new flows. It runs on netfilter's forward hook of both families, after conntrack, DNAT and
 * defragmentation and before SNAT, so it sees whole packets, the real backend and the real client. docs/dataplane.md
 * draws the path of a packet through it.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

/* net/core/filter.c and kernel/bpf/helpers.c */
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 buffer_size) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;

#include "tables.h"
#include "packet.h"
#include "events.h"
#include "report.h"

char _license[] SEC("license") = "GPL";

/* What becomes of an address that nobody knows, behind a workload's interface. */
enum guard {
	GUARD_OFF,
	GUARD_AUDIT,
	GUARD_ON,
};

/* Set before the program is loaded. */
volatile const enum guard guarded = GUARD_OFF;
volatile const bool audited = false; /* nothing is refused on this node */

/* Set while there are pods that the map has no room for: whoever is not in it may be one. */
volatile bool pods_full = false;

/* Goes up when the agent begins to write to the maps and when it ends: odd in between. */
volatile __u32 writes = 0;

/* An ICMP error about a flow, which conntrack looks up by the packet inside, or a flow that a helper expects. */
static __always_inline bool is_related(unsigned long nfct)
{
	const unsigned long info = nfct & NFCT_INFOMASK;

	return info == IP_CT_RELATED || info == IP_CT_RELATED_REPLY;
}

/*
 * Conntrack's answer: does the packet belong to a flow whose first packet passed here?
 *
 * ESTABLISHED and its replies do. NEW only means that nobody answered yet; an entry is CONFIRMED when its first packet
 * has left the stack. A kernel whose BTF lacks struct nf_conn judges every NEW packet, at a higher cost and to the same end.
 */
static __always_inline bool passed_before(unsigned long nfct)
{
	unsigned long entry = nfct & NFCT_PTRMASK;
	struct nf_conn *ct;

	if (!entry || is_related(nfct))
		return false;
	if ((nfct & NFCT_INFOMASK) != IP_CT_NEW)
		return true;
	if (!bpf_core_type_exists(struct nf_conn))
		return false;
	ct = bpf_rdonly_cast((void *)entry, bpf_core_type_id_kernel(struct nf_conn));
	return ct->status & IPS_CONFIRMED;
}

/*
 * Reads an entry of a map that the agent writes to meanwhile. The kernel gives the memory of an entry that is replaced to the next one that
 * is written, whoever may still be reading it. So what was read counts if nobody wrote, or if the entry is still in its place.
 */
static __always_inline bool read_entry(void *map, const struct address *key, void *value, __u32 size)
{
	const __u32 writes_before = writes;
	void *entry = bpf_map_lookup_elem(map, key), *read;

	for (int i = 0; i < 4 && entry; i++) {
		__builtin_memcpy(value, __builtin_assume_aligned(entry, 4), size);
		barrier();
		if (writes == writes_before && writes_before % 2 == 0)
			break;
		read = entry;
		entry = bpf_map_lookup_elem(map, key);
		if (entry == read)
			break;
	}
	return entry;
}

static __always_inline __u32 class_of(const struct address *a)
{
	struct network_key key = { .prefixlen = 128, .addr = *a };
	__u32 class, *network;

	if (read_entry(&addresses, a, &class, sizeof(class)))
		return class;
	network = bpf_map_lookup_elem(&networks, &key);
	return network ? *network : 0;
}

static __always_inline const struct pod *find_pod(const struct address *a, struct pod *pod)
{
	return read_entry(&pods, a, pod, sizeof(*pod)) ? pod : NULL;
}

/* What the set says about the peer and the port, as compiler.Tables defines. NULL: Deny of rule 0. */
static __always_inline const struct rule *look_up(const struct packet *p, __u32 set, const struct address *peer)
{
	struct row_key key = { .set = set, .class = class_of(peer) };
	struct row *row = bpf_map_lookup_elem(&rows, &key);

	if (!row && key.class) {
		key.class = 0;
		row = bpf_map_lookup_elem(&rows, &key);
	}
	if (!row)
		return NULL;
	if (row->table) {
		struct port_key port = {
			.prefixlen = PORT_KEY_EXACT,
			.table = row->table,
			.protocol = p->protocol,
			.port = bpf_htons(p->dport),
		};
		struct rule *rule = bpf_map_lookup_elem(&ports, &port);

		if (rule)
			return rule;
	}
	return &row->otherwise;
}

/* An audited pod's refusals pass. */
static __always_inline enum verdict refusal(const struct pod *pod)
{
	return pod->flags & POD_AUDIT ? VERDICT_AUDIT : VERDICT_DENY;
}

/* Judges one direction of the packet for the pod at one end of it. */
static __noinline bool judge(const struct packet *p, const struct pod *pod, enum direction direction)
{
	__u32 set = pod->sets[direction & 1];
	struct judgement j = { .tier = TIER_NETWORK_POLICY, .reason = REASON_DEFAULT };
	const struct rule *rule;

	if (!set)
		return true;
	rule = look_up(p, set, direction == EGRESS ? &p->dst : &p->src);
	if (rule) {
		j.rule = rule->id;
		j.tier = rule->tier;
		j.reason = rule->id ? REASON_RULE : REASON_DEFAULT;
	}
	j.verdict = rule && rule->action == ACTION_ACCEPT ? VERDICT_ACCEPT : refusal(pod);
	report(p, direction, pod, &j);
	return j.verdict != VERDICT_DENY;
}

/* Refuses a packet that cannot be read where the pod is isolated. */
static __noinline bool refuse_unparsable(const struct packet *p, const struct pod *pod, enum direction direction)
{
	struct judgement j = { .reason = REASON_UNPARSABLE };

	if (!pod->sets[direction & 1])
		return true;
	j.verdict = refusal(pod);
	report(p, direction, pod, &j);
	return j.verdict != VERDICT_DENY;
}

/* Refuses a packet for what it is, whatever policies say. An audited one passes. */
static __noinline bool refuse(const struct packet *p, enum direction direction, enum reason reason, bool audited)
{
	struct judgement j = { .verdict = audited ? VERDICT_AUDIT : VERDICT_DENY, .reason = reason };

	report(p, direction, NULL, &j);
	return audited;
}

static __always_inline int drop(const struct packet *p, enum reason reason)
{
	refuse(p, EGRESS, reason, false);
	return NF_DROP;
}

/*
 * What comes out of a pod's own interface must bear that pod's address. The reverse is no rule: a pod's packet may come
 * in by another interface, as when it left the node and came back.
 */
static __always_inline bool has_true_source(const struct packet *p, const struct pod *source)
{
	struct interface *in = bpf_map_lookup_elem(&interfaces, &p->ifindex);

	if (!in || in->kind != INTERFACE_POD || (source && source->ifindex == p->ifindex))
		return true;
	return refuse(p, EGRESS, REASON_SPOOFED, in->flags & POD_AUDIT);
}

/*
 * A router on the way may say what went wrong with a flow, and so may either end, but no pod that has no part in it:
 * conntrack believes whoever knows the flow. Behind a pod's own interface there is no router.
 */
static __noinline bool may_speak_of_flow(const struct packet *p, const struct pod *source)
{
	struct interface *in = bpf_map_lookup_elem(&interfaces, &p->ifindex);
	struct nf_conn *ct;

	if (!in || in->kind != INTERFACE_POD)
		return true;
	if (!source || source->ifindex != p->ifindex)
		return false;
	if (!bpf_core_type_exists(struct nf_conn))
		return true;
	ct = bpf_rdonly_cast((void *)p->conntrack, bpf_core_type_id_kernel(struct nf_conn));

	const struct address client = address_of(p->family, &ct->tuplehash[0].tuple.src.u3);
	const struct address server = address_of(p->family, &ct->tuplehash[1].tuple.src.u3);

	return is_same(&p->src, &client) || is_same(&p->src, &server);
}

/* An interface of a kind that pods are behind, unless it is known to lead out. */
static __noinline bool is_workloads(struct net_device *dev)
{
	struct interface *known;
	struct in6_addr *kind;
	__u32 first, second, ifindex;

	if (!dev || !dev->rtnl_link_ops)
		return false;
	kind = bpf_rdonly_cast((void *)dev->rtnl_link_ops->kind, bpf_core_type_id_kernel(struct in6_addr));
	first = bpf_ntohl(kind->in6_u.u6_addr32[0]);
	second = bpf_ntohl(kind->in6_u.u6_addr32[1]);
	if (!(first == 0x76657468 && second >> 24 == 0) &&      /* "veth" */
	    !(first == 0x62726964 && second >> 8 == 0x676500)) /* "bridge" */
		return false;
	ifindex = dev->ifindex;
	known = bpf_map_lookup_elem(&interfaces, &ifindex);
	return !known || known->kind != INTERFACE_UPLINK;
}

/* Where it was asked for, or where pods do not fit, a pod that nobody knows neither sends nor gets a packet. */
static __always_inline bool ends_are_known(const struct packet *p, const struct nf_hook_state *state, const struct pod *source, const struct pod *destination)
{
	const bool passes = guarded == GUARD_AUDIT || audited;

	if (guarded == GUARD_OFF && !pods_full)
		return true;
	if (!source && is_workloads(state->in) && !refuse(p, EGRESS, REASON_UNKNOWN, passes))
		return false;
	if (!destination && is_workloads(state->out) && !refuse(p, INGRESS, REASON_UNKNOWN, passes))
		return false;
	return true;
}

/*
 * The stack forwards no address of a link, but a bridge does, between its pods: policies know them by other addresses, and
 * who is behind these cannot be told.
 */
static __always_inline bool is_beside_policies(const struct packet *p)
{
	return is_link_local(&p->dst) || (is_link_local(&p->src) && !is_multicast(&p->dst));
}

/*
 * A pod that reaches itself through its own Service cannot be cut off from itself. Where the pod's interface is known
 * the packet must have come out of it: anybody can write another's address into both fields.
 */
static __always_inline bool is_hairpin(const struct packet *p, const struct pod *pod)
{
	return is_same(&p->src, &p->dst) && (!pod || !pod->ifindex || pod->ifindex == p->ifindex);
}

/* A flow that was cut must not be opened again by the next packet of its other end. A TCP SYN is a flow of its own. */
static __always_inline bool is_revoked(const struct packet *p)
{
	struct revoked_key key = { .src = p->src, .dst = p->dst, .sport = p->sport, .dport = p->dport, .protocol = p->protocol };
	__u64 *until;

	if (p->opens)
		return false;
	until = bpf_map_lookup_elem(&revoked, &key);
	return until && *until > bpf_ktime_get_ns();
}

/* Judges a packet that conntrack knows nothing of, or only that it is new. */
static __noinline int judge_new(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
	const struct net_device *in = ctx->state->in;
	struct packet p = {
		.conntrack = nfct & NFCT_PTRMASK,
		.family = ctx->state->pf,
		.ifindex = in ? in->ifindex : 0,
		.len = ctx->skb->len,
	};
	enum parsed parsed = parse(&p, ctx->skb);
	const struct pod *source, *destination;
	struct pod sender, receiver;

	if (parsed == UNPARSABLE_ADDRESSES)
		return drop(&p, REASON_UNPARSABLE);
	/* RFC 4038, 4.2: such addresses do not belong on the wire, and here they would pass for IPv4 pods */
	if (p.family != NFPROTO_IPV4 && (is_mapped(&p.src) || is_mapped(&p.dst)))
		return drop(&p, REASON_INVALID);
	source = find_pod(&p.src, &sender);
	if (is_related(nfct) && may_speak_of_flow(&p, source))
		return NF_ACCEPT;
	/* Conntrack leaves neighbour discovery alone (net/netfilter/nf_conntrack_proto_icmpv6.c); a bridge forwards it. */
	if (p.neighbour && (nfct & NFCT_INFOMASK) == IP_CT_UNTRACKED)
		return NF_ACCEPT;
	if (is_beside_policies(&p) && !refuse(&p, EGRESS, REASON_UNKNOWN, audited))
		return NF_DROP;

	destination = find_pod(&p.dst, &receiver);
	if (!has_true_source(&p, source) || !ends_are_known(&p, ctx->state, source, destination))
		return NF_DROP;
	if (parsed == UNPARSABLE) {
		if (source && !refuse_unparsable(&p, source, EGRESS))
			return NF_DROP;
		if (destination && !refuse_unparsable(&p, destination, INGRESS))
			return NF_DROP;
		return NF_ACCEPT;
	}
	if (is_hairpin(&p, source))
		return NF_ACCEPT;
	if (source && !judge(&p, source, EGRESS))
		return NF_DROP;
	if (destination && !judge(&p, destination, INGRESS))
		return NF_DROP;
	if (is_revoked(&p))
		return drop(&p, REASON_REVOKED);
	return NF_ACCEPT;
}

/* Nearly every packet ends here, so nothing comes before the question: no map, no stack. */
SEC("netfilter")
int kidoban(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	return passed_before(nfct) ? NF_ACCEPT : judge_new(ctx, nfct);
}
