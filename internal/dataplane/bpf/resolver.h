/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Packets between clients and resolvers: which of them are read, as a message or as a part of a stream. */
#pragma once

/* Reads a packet of a flow to port 53. ANSWERS: w->s.records are to be learned, if there are any. */
static __always_inline enum answer read_dns(struct bpf_nf_ctx *ctx, unsigned long nfct, struct worker *w)
{
	const struct nf_conn *ct = bpf_rdonly_cast((void *)(nfct & NFCT_PTRMASK), bpf_core_type_id_kernel(struct nf_conn));
	const bool is_answer = is_reply(nfct);
	struct net_device *in = ctx->state->in;
	struct bpf_dynptr data;

	w->p.family = ctx->state->pf;
	w->p.ifindex = in ? in->ifindex : 0;
	if (bpf_dynptr_from_skb((struct __sk_buff *)ctx->skb, 0, &data))
		return ANSWERS;
	__builtin_memset(&w->p.src, 0, 2 * sizeof(w->p.src));
	if (parse_data(&w->p, &w->u, &data, ctx->skb->len) != PARSED)
		return ANSWERS;
	if (!find_pod(is_answer ? &w->p.dst : &w->p.src, &w->pod))
		return ANSWERS;
	w->server = address_of(w->p.family, &ct->tuplehash[0].tuple.dst.u3);
	if (!is_resolver(&w->server, 53) && !is_resolver(is_answer ? &w->p.src : &w->p.dst, is_answer ? w->p.sport : w->p.dport))
		return is_answer ? ANSWER_UNTRUSTED : ANSWERS;
	if (!came_from_source(w, in))
		return is_answer ? ANSWER_SPOOFED : ANSWERS;
	if (w->p.protocol == IPPROTO_TCP) {
		if (is_answer)
			take_segment(w, &data);
		return ANSWERS;
	}
	if (w->p.protocol != IPPROTO_UDP)
		return ANSWERS;
	if (!fetch(w, &data))
		return is_answer ? ANSWER_TOO_LONG : ANSWERS;
	if (is_answer)
		return read_answer(w, false);
	note_question(w);
	return ANSWERS;
}

/* Looks at a packet of a flow to port 53 that may pass. Without scratch memory an answer is dropped. */
static __noinline int look_at_dns(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
	struct worker *w = take_worker();
	enum answer result;

	if (!w) {
		count(COUNTER_ANSWERS + ANSWER_BUSY);
		return is_reply(nfct) ? NF_DROP : NF_ACCEPT;
	}
	w->s.records = 0;
	result = read_dns(ctx, nfct, w);
	if (result == ANSWERS && w->s.records) {
		learn_records(w);
		result = ANSWER_LEARNED;
	}
	give_back(w);
	if (result < ANSWERS)
		count(COUNTER_ANSWERS + result);
	return NF_ACCEPT;
}
