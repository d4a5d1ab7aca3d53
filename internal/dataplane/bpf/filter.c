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

#include "clock.h"
#include "maps.h"
#include "packet.h"
#include "events.h"
#include "report.h"
#include "flow.h"
#include "entry.h"
#include "names.h"
#include "judge.h"
#include "interface.h"
#include "tunnel.h"
#include "source.h"
#include "local.h"
#include "revoke.h"
#include "message.h"
#include "worker.h"
#include "missed.h"
#include "hints.h"
#include "learn.h"
#include "dns.h"
#include "stream.h"
#include "resolver.h"

char _license[] SEC("license") = "GPL";

/* Judges a packet that has no entry in conntrack, or a new one. */
static __always_inline int judge_new(struct bpf_nf_ctx *ctx, unsigned long nfct)
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
	if (records_wanted && parsed == PARSED)
		p.late = lateness(&p, nfct);
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
	if (parsed != UNPARSABLE && is_hairpin(&p, source))
		source = destination = find_own(&p, &sender);
	if (source && judge(&p, source, EGRESS, parsed != UNPARSABLE) == VERDICT_DENY)
		return NF_DROP;
	if (destination && judge(&p, destination, INGRESS, parsed != UNPARSABLE) == VERDICT_DENY)
		return NF_DROP;
	if (parsed != UNPARSABLE && !p.opens && revoked_kinds && is_revoked(&p, source, destination))
		return drop(&p, REASON_REVOKED);
	return NF_ACCEPT;
}

/*
 * Judges a packet to the node itself. It judges every packet that may be encapsulated: conntrack may have an entry
 * from before this program was attached.
 */
static __noinline int judge_local_in(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
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
	if (records_wanted && parsed == PARSED)
		p.late = lateness(&p, nfct);
	source = find_pod(&p.src, &sender);
	p.from_pod = is_sender(&p, source);
	if (has_tunnels && is_smuggled(&p, parsed, source || is_workload_interface(in)) &&
	    deny(&p, EGRESS, REASON_ENCAPSULATED, audited) == VERDICT_DENY)
		return NF_DROP;
	if (passed_before(nfct) || !is_judged_locally(&p, parsed, nfct))
		return NF_ACCEPT;
	if (judges_local)
		return judge_local(&p, parsed, source, &sender);
	if (records_wanted && source)
		record_open(&p, source, EGRESS);
	return NF_ACCEPT;
}

/*
 * Runs on the hook of packets to the node itself, only while the node decapsulates anything, some pod has an entry
 * for it, a trusted resolver runs on it, or records are wanted.
 */
SEC("netfilter")
int kidoban_local_in(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	if (judge_local_in(ctx, nfct) != NF_ACCEPT)
		return NF_DROP;
	if (!reads_own || !(is_untracked(nfct) || (is_dns_flow(nfct) && !is_reply(nfct))))
		return NF_ACCEPT;
	look_at_question(ctx, nfct);
	return NF_ACCEPT;
}

/* Runs on the hook of packets that the node itself sends, only while a trusted resolver runs on it. It judges nothing. */
SEC("netfilter")
int kidoban_local_out(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	if (!reads_own || !(is_untracked(nfct) || (is_dns_flow(nfct) && is_reply(nfct))))
		return NF_ACCEPT;
	return pass_answer(ctx, nfct);
}

/* Judges a packet that may be the first of its flow, which a question to a resolver is. */
static __noinline int judge_first(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	if (!passed_before(nfct) && judge_new(ctx, nfct) != NF_ACCEPT)
		return NF_DROP;
	if (is_dns_flow(nfct))
		look_at_question(ctx, nfct);
	return NF_ACCEPT;
}

/* Looks for answers of resolvers among the packets of established flows. */
static __noinline int look_at_established(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	if (!is_dns_flow(nfct))
		return NF_ACCEPT;
	if (is_reply(nfct))
		return pass_answer(ctx, nfct);
	look_at_question(ctx, nfct);
	return NF_ACCEPT;
}

/*
 * Nearly every packet ends here, so the answer of conntrack comes first: no map, no stack, and no variable, which
 * would be in memory that nothing else has read. Of conntrack's entry the hook before has just read the port.
 */
SEC("netfilter")
int kidoban(struct bpf_nf_ctx *ctx)
{
	unsigned long nfct = ctx->skb->_nfct;

	if (!is_established(nfct))
		return judge_first(ctx);
	return is_to_dns_port(nfct) ? look_at_established(ctx) : NF_ACCEPT;
}
