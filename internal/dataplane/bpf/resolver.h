/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Packets between clients and resolvers: which of them are read, as a message or as a part of a stream. */
#pragma once

/*
 * A trusted resolver runs on this node, as NodeLocal DNSCache does: its answers pass the hook of packets that the
 * node sends. Its rules may exempt them from connection tracking.
 */
volatile bool reads_own = false;

static __always_inline bool is_untracked(unsigned long nfct)
{
	return names_on && has_names && (nfct & NFCT_INFOMASK) == IP_CT_UNTRACKED;
}

/* Reads the resolver's address as the client has it: before DNAT, where conntrack has an entry. */
static __always_inline void read_server(struct worker *w, unsigned long nfct, bool is_answer)
{
	const unsigned long entry = nfct & NFCT_PTRMASK;
	const struct nf_conn *ct;

	if (!entry) {
		w->server = is_answer ? w->p.src : w->p.dst;
		return;
	}
	ct = bpf_rdonly_cast((void *)entry, bpf_core_type_id_kernel(struct nf_conn));
	w->server = address_of(w->p.family, &ct->tuplehash[0].tuple.dst.u3);
}

/* Reads a packet of a flow to port 53. ANSWERS: w->s.records are to be learned, if there are any. */
static __always_inline enum answer read_dns(struct bpf_nf_ctx *ctx, unsigned long nfct, struct worker *w, bool is_answer)
{
	struct net_device *in = ctx->state->in;
	struct bpf_dynptr data;
	enum answer source;

	w->p.family = ctx->state->pf;
	w->p.ifindex = in ? in->ifindex : 0;
	if (bpf_dynptr_from_skb((struct __sk_buff *)ctx->skb, 0, &data))
		return ANSWERS;
	__builtin_memset(&w->p.src, 0, 2 * sizeof(w->p.src));
	if (parse_data(&w->p, &w->u, &data, ctx->skb->len) != PARSED)
		return ANSWERS;
	if (!(nfct & NFCT_PTRMASK) && (is_answer ? w->p.sport : w->p.dport) != 53)
		return ANSWERS;
	if (!find_pod(is_answer ? &w->p.dst : &w->p.src, &w->pod))
		return ANSWERS;
	read_server(w, nfct, is_answer);
	if (!is_resolver(&w->server, 53) && !is_resolver(is_answer ? &w->p.src : &w->p.dst, is_answer ? w->p.sport : w->p.dport)) {
		if (!is_answer)
			return ANSWERS;
		if (w->p.protocol == IPPROTO_UDP && check_source(w, in) == ANSWERS && fetch(w, &data))
			return read_untrusted(w);
		return ANSWER_UNTRUSTED;
	}
	source = check_source(w, in);
	if (source != ANSWERS)
		return is_answer ? source : ANSWERS;
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

/* Looks at a client's packet of a flow to port 53 that may pass. */
__noinline int look_at_question(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
	struct worker *w = take_worker();

	if (!w)
		return 0;
	read_dns(ctx, nfct, w, false);
	give_back(w);
	return 0;
}

/* Looks at a server's packet of such a flow. False: it is to be dropped, as there is no scratch memory. */
__noinline bool look_at_answer(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
	struct worker *w = take_worker();
	enum answer result;

	if (!w) {
		count(COUNTER_ANSWERS + ANSWER_BUSY);
		return false;
	}
	w->s.records = 0;
	result = read_dns(ctx, nfct, w, true);
	if (result == ANSWERS && w->s.records) {
		learn_records(w);
		result = ANSWER_LEARNED;
	}
	give_back(w);
	if (result < ANSWERS)
		count(COUNTER_ANSWERS + result);
	return true;
}

/* The verdict for a server's packet. The verifier does not know that look_at_answer returns 0 or 1, and the compiler does. */
static __always_inline int pass_answer(struct bpf_nf_ctx *ctx, unsigned long nfct)
{
	__u32 passes = look_at_answer(ctx, nfct);

	barrier_var(passes);
	return passes ? NF_ACCEPT : NF_DROP;
}
