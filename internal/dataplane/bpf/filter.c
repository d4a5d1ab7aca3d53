//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The judge of new flows. It runs on netfilter's forward hook of both families, after conntrack, DNAT and
 * defragmentation and before SNAT, so it sees whole packets, the real backend and the real client.
 * docs/dataplane.md draws the path of a packet through it.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

/* net/core/filter.c and kernel/bpf/helpers.c */
extern int bpf_dynptr_from_skb(struct __sk_buff *skb, __u64 flags, struct bpf_dynptr *ptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *ptr, __u32 offset, void *buffer, __u32 buffer_size) __ksym;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;

#include "maps.h"
#include "packet.h"
#include "tunnel.h"
#include "events.h"
#include "report.h"

char _license[] SEC("license") = "GPL";

/* dataplane.Guard: what becomes of an unknown address behind a workload's interface. */
enum guard {
	GUARD_OFF,
	GUARD_AUDIT,
	GUARD_ON,
};

/* Set before the program is loaded. */
volatile const enum guard guarded = GUARD_OFF;
volatile const bool audited = false; /* nothing is denied on this node for another reason than policies */

/* Set while the map has no room for some pods: an unknown address may be one of theirs. */
volatile bool pods_full = false;

/* Goes up when the agent begins a write to a map and when that write ends: odd in between. */
volatile __u32 writes = 0;

/* Set before the program is loaded: this CPU may make loads in another order than the program's. */
volatile const bool reorders_loads = false;

/*
 * An ICMP error about a flow, which conntrack looks up by the packet inside, or a flow that a helper expects.
 */
static __always_inline bool is_related(unsigned long nfct)
{
	const unsigned long info = nfct & NFCT_INFOMASK;

	return info == IP_CT_RELATED || info == IP_CT_RELATED_REPLY;
}

/*
 * Asks conntrack whether the packet belongs to a flow whose first packet passed here.
 *
 * ESTABLISHED and replies do. NEW only means that there was no answer yet; an entry is CONFIRMED when its
 * first packet has left the stack. On a kernel whose BTF lacks struct nf_conn every NEW packet is judged:
 * slower, with the same result.
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

/* Keeps the loads before it ahead of those after it. BPF has no weaker barrier before Linux 6.15. */
static __always_inline void order_loads(void)
{
	__u64 word = 0;

	barrier();
	if (reorders_loads)
		__sync_fetch_and_or(&word, 0);
	barrier();
}

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
static __always_inline enum entry read_entry(void *map, const void *key, void *value, __u32 size)
{
	__builtin_memset(value, 0, size);
	for (int i = 0; i < TRIES; i++) {
		const __u32 before = writes;
		void *entry;

		order_loads();
		entry = bpf_map_lookup_elem(map, key);
		hold_up();
		if (entry)
			__builtin_memcpy(value, __builtin_assume_aligned(entry, 4), size);
		hold_up();
		order_loads();
		/* An odd number is that of a write that had begun before: it is the one that there may be. */
		if (writes - (before & ~1u) <= 2)
			return entry ? ENTRY_READ : ENTRY_ABSENT;
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

/* The pod with the address, or NULL. A pod that cannot be read is denied everything. */
static __always_inline const struct pod *find_pod(const struct address *a, struct pod *pod)
{
	const enum entry entry = read_entry(&pods, a, pod, sizeof(*pod));

	if (entry == ENTRY_CHANGING)
		*pod = (struct pod){ .sets = { SET_DENY_ALL, SET_DENY_ALL } };
	return entry == ENTRY_ABSENT ? NULL : pod;
}

/* The interface with the index. One that cannot be read is a pod's own. */
static __always_inline bool find_interface(__u32 ifindex, struct interface *found)
{
	const enum entry entry = read_entry(&interfaces, &ifindex, found, sizeof(*found));

	if (entry == ENTRY_CHANGING)
		*found = (struct interface){ .kind = INTERFACE_POD };
	return entry != ENTRY_ABSENT;
}

/* Whether an interface is one of the pod's own. */
static __noinline bool is_behind(__u32 ifindex, const struct pod *pod)
{
	struct interface known;

	if (pod->ifindex == ifindex)
		return true;
	return pod->ifindex && find_interface(ifindex, &known) && known.kind == INTERFACE_POD && known.pod == pod->ifindex;
}

/*
 * The decision of a set about the peer and the port, as compiler.Maps defines it. False: Deny of rule 0, also
 * where the maps cannot be read.
 */
static __always_inline bool look_up(__u8 protocol, __u16 dport, __u32 set, const struct address *peer, struct decision *found)
{
	struct row_key key = { .set = set };
	struct row row;
	enum entry entry;

	if (!find_class(peer, &key.class))
		return false;
	entry = read_entry(&rows, &key, &row, sizeof(row));
	if (entry == ENTRY_ABSENT && key.class) {
		key.class = 0;
		entry = read_entry(&rows, &key, &row, sizeof(row));
	}
	if (entry != ENTRY_READ)
		return false;
	*found = row.default_decision;
	if (row.port_list) {
		struct port_key port = {
			.prefixlen = PORT_KEY_EXACT,
			.port_list = row.port_list,
			.protocol = protocol,
			.port = bpf_htons(dport),
		};
		struct decision *decision = bpf_map_lookup_elem(&ports, &port);

		if (decision)
			*found = *decision;
	}
	return true;
}

/* The verdict for what is denied: it passes if it is audited. */
static __always_inline enum verdict denial(bool is_audited)
{
	return is_audited ? VERDICT_AUDIT : VERDICT_DENY;
}

/* Judges one direction of the packet by the policies of the pod at one end of it. */
static __noinline enum verdict judge(const struct packet *p, const struct pod *pod, enum direction direction)
{
	__u32 set = pod->sets[direction & 1];
	struct finding f = { .tier = TIER_NETWORK_POLICY, .reason = REASON_DEFAULT };
	struct decision decision = { .action = ACTION_DENY };

	if (!set)
		return VERDICT_ALLOW;
	if (look_up(p->protocol, p->dport, set, direction == EGRESS ? &p->dst : &p->src, &decision)) {
		f.rule = decision.rule;
		f.tier = decision.tier;
		f.reason = decision.rule ? REASON_RULE : REASON_DEFAULT;
	}
	f.verdict = decision.action == ACTION_ALLOW ? VERDICT_ALLOW : denial(pod->flags & POD_AUDIT);
	report(p, direction, pod, &f);
	return f.verdict;
}

/* Judges a packet that cannot be read: it is denied if the pod is isolated. */
static __noinline enum verdict judge_unparsable(const struct packet *p, const struct pod *pod, enum direction direction)
{
	struct finding f = { .reason = REASON_UNPARSABLE };

	if (!pod->sets[direction & 1])
		return VERDICT_ALLOW;
	f.verdict = denial(pod->flags & POD_AUDIT);
	report(p, direction, pod, &f);
	return f.verdict;
}

/*
 * Denies a packet for another reason than policies. The verifier checks a function that is not static once,
 * and not again for every call; so it asks for a check that p is there.
 */
__noinline enum verdict deny(const struct packet *p, enum direction direction, enum reason reason, bool is_audited)
{
	struct finding f = { .verdict = denial(is_audited), .reason = reason };

	if (!p)
		return VERDICT_DENY;
	report(p, direction, NULL, &f);
	return f.verdict;
}

static __always_inline int drop(const struct packet *p, enum reason reason)
{
	deny(p, EGRESS, reason, false);
	return NF_DROP;
}

/*
 * A packet out of an interface of a pod must have one of that pod's addresses. The reverse is no rule: a
 * pod's packet may come in by another interface, as when it left the node and came back. But another node
 * sends no packet of this node's pods through a tunnel.
 */
static __always_inline enum verdict judge_source(const struct packet *p, const struct pod *source)
{
	struct interface in;

	if (find_interface(p->ifindex, &in) && in.kind == INTERFACE_POD) {
		if (source && in.pod && source->ifindex == in.pod)
			return VERDICT_ALLOW;
		return deny(p, EGRESS, REASON_SPOOFED, in.flags & POD_AUDIT);
	}
	if (has_tunnels && source && is_tunnel_device(p->ifindex))
		return deny(p, EGRESS, REASON_SPOOFED, audited);
	return VERDICT_ALLOW;
}

/*
 * A router on the way may report what went wrong with a flow, and so may either end. Another pod may not:
 * conntrack accepts a report from every sender that names the flow. Behind a pod's own interface there is no
 * router.
 */
static __noinline bool may_report_on_flow(const struct packet *p, const struct pod *source)
{
	struct interface in;
	struct nf_conn *ct;

	if (!find_interface(p->ifindex, &in) || in.kind != INTERFACE_POD)
		return true;
	if (!source || source->ifindex != in.pod)
		return false;
	if (!bpf_core_type_exists(struct nf_conn))
		return true;
	ct = bpf_rdonly_cast((void *)p->conntrack, bpf_core_type_id_kernel(struct nf_conn));

	const struct address client = address_of(p->family, &ct->tuplehash[0].tuple.src.u3);
	const struct address server = address_of(p->family, &ct->tuplehash[1].tuple.src.u3);

	return is_same(&p->src, &client) || is_same(&p->src, &server);
}

/* Pods are behind interfaces of these kinds, unless the interface is known to lead out of the node. */
static __noinline bool is_workload_interface(struct net_device *dev)
{
	struct interface known;
	struct in6_addr *kind;
	__u32 first, second;

	if (!dev || !dev->rtnl_link_ops)
		return false;
	kind = bpf_rdonly_cast((void *)dev->rtnl_link_ops->kind, bpf_core_type_id_kernel(struct in6_addr));
	first = bpf_ntohl(kind->in6_u.u6_addr32[0]);
	second = bpf_ntohl(kind->in6_u.u6_addr32[1]);
	if (!(first == 0x76657468 && second >> 24 == 0) &&      /* "veth" */
	    !(first == 0x62726964 && second >> 8 == 0x676500)) /* "bridge" */
		return false;
	return !find_interface(dev->ifindex, &known) || known.kind != INTERFACE_UPLINK;
}

/*
 * With a guard, or while some pods do not fit in the map, an unknown pod neither sends nor receives a packet.
 */
static __always_inline enum verdict judge_unknown(const struct packet *p, const struct nf_hook_state *state,
						  const struct pod *source, const struct pod *destination)
{
	const bool is_audited = guarded == GUARD_AUDIT || audited;

	if (guarded == GUARD_OFF && !pods_full)
		return VERDICT_ALLOW;
	if (!source && is_workload_interface(state->in) && deny(p, EGRESS, REASON_UNKNOWN, is_audited) == VERDICT_DENY)
		return VERDICT_DENY;
	if (!destination && is_workload_interface(state->out) && deny(p, INGRESS, REASON_UNKNOWN, is_audited) == VERDICT_DENY)
		return VERDICT_DENY;
	return VERDICT_ALLOW;
}

/*
 * Whether a packet that its receiver would decapsulate comes from what is no end of a tunnel. Neither is a
 * pod, whatever address it writes, nor a node that sends on what it got for a Service.
 */
__noinline bool is_smuggled(const struct packet *p, enum parsed parsed, bool is_pods)
{
	if (!p || !is_encapsulated(p, parsed))
		return false;
	if (is_pods || is_redirected(p))
		return true;
	return !any_tunnel_end && !is_tunnel_end(&p->src);
}

/*
 * A packet to another node, which may see only this node's address in it. Tunnels between pods are their own
 * affair: these end at pods of this node, or lead through a tunnel to those of another.
 */
static __always_inline enum verdict judge_tunnel(const struct packet *p, enum parsed parsed, const struct nf_hook_state *state,
						 const struct pod *source, const struct pod *destination)
{
	if (!has_tunnels || destination)
		return VERDICT_ALLOW;
	if (!is_tunnel_end(&p->dst) && (!any_tunnel_end || (state->out && is_tunnel_device(state->out->ifindex))))
		return VERDICT_ALLOW;
	if (!is_smuggled(p, parsed, source || is_workload_interface(state->in)))
		return VERDICT_ALLOW;
	return deny(p, EGRESS, REASON_ENCAPSULATED, audited);
}

/*
 * The stack does not forward link-local addresses, but a bridge does between its pods. Policies contain other
 * addresses of these pods, so they cannot judge such a packet.
 */
static __always_inline bool is_link_local_traffic(const struct packet *p)
{
	return is_link_local(&p->dst) || (is_link_local(&p->src) && !is_multicast(&p->dst));
}

/*
 * A pod that reaches itself through its own Service: NetworkPolicies always allow that. Where the pod's interface
 * is known the packet must have come out of it: any sender can write another's address into both fields.
 */
static __always_inline bool is_hairpin(const struct packet *p, const struct pod *pod)
{
	return is_same(&p->src, &p->dst) && (!pod || !pod->ifindex || is_behind(p->ifindex, pod));
}

/* A bit for each enum revoked_kind that the map may have. */
volatile __u32 revoked_kinds = 0;

/* Whether the pod's policies deny a flow that the packet's receiver opened. */
static __noinline bool denies_reverse(const struct packet *p, const struct pod *pod, enum direction direction)
{
	const __u32 set = pod->sets[direction & 1];
	struct decision decision = { .action = ACTION_DENY };

	if (!set || pod->flags & POD_AUDIT)
		return false;
	look_up(p->protocol, p->sport, set, direction == EGRESS ? &p->src : &p->dst, &decision);
	return decision.action != ACTION_ALLOW;
}

/*
 * The record of a cut flow that the packet may belong to. Its memory may be another record's by the time that
 * it is read: then it is held by that one's time.
 */
static __noinline struct revocation *find_revoked(const struct packet *p, struct revoked_key *key, __u64 now)
{
	const bool has_opening = p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_SCTP;
	const __u32 kinds = revoked_kinds;

	for (__u32 i = 0; i < 2 * REVOKED_KINDS; i++) {
		const bool is_receivers = i & 1;
		const __u32 kind = i / 2;
		struct revocation *found;

		if (!(kinds & 1 << kind) || (kind == REVOKED_SERVER && is_receivers) || (kind == REVOKED_CLIENT && !is_receivers))
			continue;
		__builtin_memset(key, 0, sizeof(*key));
		key->pod = is_receivers ? p->dst : p->src;
		key->kind = kind;
		key->protocol = has_opening ? IPPROTO_TCP : IPPROTO_UDP;
		if (kind == REVOKED_PEER)
			key->peer = is_receivers ? p->src : p->dst;
		if (kind == REVOKED_SERVER || kind == REVOKED_CLIENT) {
			key->protocol = p->protocol;
			key->port = p->sport;
		}
		found = bpf_map_lookup_elem(&revoked, key);
		if (found && found->until > now)
			return found;
	}
	return NULL;
}

/* A hit renews the record, but does not write it for every packet. */
static __always_inline void renew(const struct revoked_key *key, __u64 until, __u64 hold, __u64 now)
{
	const struct revocation renewed = { .until = now + hold, .hold = hold };

	if (hold && until - now < hold - hold / 8)
		bpf_map_update_elem(&revoked, key, &renewed, BPF_EXIST);
}

/*
 * The next packet of the other end must not open a cut flow again. A TCP SYN is a flow of its own, and so may
 * be what the policies would allow in the other direction too. ICMP's answers open nothing.
 */
static __noinline bool is_revoked(const struct packet *p, const struct pod *source, const struct pod *destination)
{
	const __u64 now = bpf_ktime_get_ns();
	struct revoked_key key;
	struct revocation *found;
	__u64 until, hold;

	if (p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return false;
	found = find_revoked(p, &key, now);
	if (!found)
		return false;
	until = found->until;
	hold = found->hold;
	if (!(destination && denies_reverse(p, destination, EGRESS)) && !(source && denies_reverse(p, source, INGRESS)))
		return false;
	renew(&key, until, hold, now);
	return true;
}

/* The bridge's port that a packet came in by, or else the interface. */
static __always_inline __u32 port_of(struct sk_buff *skb, __u32 ifindex)
{
	struct nf_bridge_info *bridge;
	__u64 extensions;

	if (!bpf_core_field_exists(struct nf_bridge_info, physinif) || !bpf_core_enum_value_exists(enum skb_ext_id, SKB_EXT_BRIDGE_NF))
		return ifindex;
	if (!(skb->active_extensions & 1 << bpf_core_enum_value(enum skb_ext_id, SKB_EXT_BRIDGE_NF)))
		return ifindex;
	extensions = (__u64)skb->extensions + skb->extensions->offset[bpf_core_enum_value(enum skb_ext_id, SKB_EXT_BRIDGE_NF)] * 8;
	bridge = bpf_rdonly_cast((void *)extensions, bpf_core_type_id_kernel(struct nf_bridge_info));
	return bridge->physinif ?: ifindex;
}

/* On a bridge a pod can write another's address. */
static __always_inline bool is_sender(const struct packet *p, const struct pod *source)
{
	return source && p->port == p->ifindex && (!source->ifindex || is_behind(p->ifindex, source));
}

/*
 * A pod's second entry, if it has one: for its traffic to its own node and to itself, which only the cluster's
 * policies judge. See compiler.OwnAddress.
 */
static __always_inline const struct pod *find_own(struct packet *p, struct pod *pod)
{
	const struct pod *own;

	p->src.word[0] ^= bpf_htonl(0xff000000); /* in place: the stack is nearly full */
	own = find_pod(&p->src, pod);
	p->src.word[0] ^= bpf_htonl(0xff000000);
	return own;
}

/* Judges a new packet to the node itself. What the node opens towards its pods does not come here. */
static __always_inline int judge_local(struct packet *p, enum parsed parsed, unsigned long nfct, struct pod *entry)
{
	const struct pod *own;
	enum verdict verdict;

	if (parsed == UNPARSABLE_ADDRESSES || is_related(nfct))
		return NF_ACCEPT;
	if (p->neighbour && (nfct & NFCT_INFOMASK) == IP_CT_UNTRACKED)
		return NF_ACCEPT;
	if (is_link_local(&p->dst) || is_multicast(&p->dst))
		return NF_ACCEPT;
	own = find_own(p, entry);
	if (!own)
		return NF_ACCEPT;
	verdict = parsed == UNPARSABLE ? judge_unparsable(p, own, EGRESS) : judge(p, own, EGRESS);
	return verdict == VERDICT_DENY ? NF_DROP : NF_ACCEPT;
}

/* Judges a packet that has no entry in conntrack, or a new one. */
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

	p.port = port_of(ctx->skb, p.ifindex);
	if (parsed == UNPARSABLE_ADDRESSES)
		return drop(&p, REASON_UNPARSABLE);
	/*
	 * RFC 4038, 4.2: such addresses do not belong on the wire, and here they would be taken for those of
	 * IPv4 pods.
	 */
	if (p.family != NFPROTO_IPV4 && (is_mapped(&p.src) || is_mapped(&p.dst)))
		return drop(&p, REASON_INVALID);
	source = find_pod(&p.src, &sender);
	p.from_pod = is_sender(&p, source);
	if (is_related(nfct) && may_report_on_flow(&p, source))
		return NF_ACCEPT;
	/*
	 * Conntrack leaves neighbour discovery alone (net/netfilter/nf_conntrack_proto_icmpv6.c); a bridge
	 * forwards it.
	 */
	if (p.neighbour && (nfct & NFCT_INFOMASK) == IP_CT_UNTRACKED)
		return NF_ACCEPT;
	if (is_link_local_traffic(&p) && deny(&p, EGRESS, REASON_UNKNOWN, audited) == VERDICT_DENY)
		return NF_DROP;

	destination = find_pod(&p.dst, &receiver);
	if (judge_source(&p, source) == VERDICT_DENY)
		return NF_DROP;
	if (judge_tunnel(&p, parsed, ctx->state, source, destination) == VERDICT_DENY)
		return NF_DROP;
	if (judge_unknown(&p, ctx->state, source, destination) == VERDICT_DENY)
		return NF_DROP;
	if (parsed == UNPARSABLE) {
		if (source && judge_unparsable(&p, source, EGRESS) == VERDICT_DENY)
			return NF_DROP;
		if (destination && judge_unparsable(&p, destination, INGRESS) == VERDICT_DENY)
			return NF_DROP;
		return NF_ACCEPT;
	}
	if (is_hairpin(&p, source))
		source = destination = find_own(&p, &sender);
	if (source && judge(&p, source, EGRESS) == VERDICT_DENY)
		return NF_DROP;
	if (destination && judge(&p, destination, INGRESS) == VERDICT_DENY)
		return NF_DROP;
	if (!p.opens && revoked_kinds && is_revoked(&p, source, destination))
		return drop(&p, REASON_REVOKED);
	return NF_ACCEPT;
}

/* Some pod has an entry for its traffic to this node. */
volatile bool judges_local = false;

/*
 * Runs on the hook of packets to the node itself, only while the node decapsulates anything or some pod has an
 * entry for it. It judges every packet that may be encapsulated: conntrack may have an entry from before this
 * program was attached.
 */
SEC("netfilter")
int kidoban_local_in(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;
	struct net_device *in = ctx->state->in;
	struct packet p = {
		.conntrack = nfct & NFCT_PTRMASK,
		.family = ctx->state->pf,
		.ifindex = in ? in->ifindex : 0,
		.len = ctx->skb->len,
	};
	enum parsed parsed;
	const struct pod *source;
	struct pod sender;

	if (p.ifindex == LOOPBACK_IFINDEX || (!has_tunnels && passed_before(nfct)))
		return NF_ACCEPT;
	p.port = port_of(ctx->skb, p.ifindex);
	parsed = parse(&p, ctx->skb);
	source = find_pod(&p.src, &sender);
	p.from_pod = is_sender(&p, source);
	if (has_tunnels && is_smuggled(&p, parsed, source || is_workload_interface(in)) &&
	    deny(&p, EGRESS, REASON_ENCAPSULATED, audited) == VERDICT_DENY)
		return NF_DROP;
	return !judges_local || passed_before(nfct) ? NF_ACCEPT : judge_local(&p, parsed, nfct, &sender);
}

/* Nearly every packet ends here, so passed_before comes first: no map, no stack. */
SEC("netfilter")
int kidoban(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	return passed_before(nfct) ? NF_ACCEPT : judge_new(ctx, nfct);
}
