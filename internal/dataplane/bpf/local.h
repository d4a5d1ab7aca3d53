/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Traffic of a pod to itself and to its own node, which only the cluster's policies judge. See compiler.OwnAddress. */
#pragma once

/* Some pod has an entry for its traffic to this node. */
volatile bool judges_local = false;

/*
 * A pod that reaches itself through its own Service: NetworkPolicies always allow that. Where the pod's interface
 * is known the packet must have come out of it: any sender can write another's address into both fields.
 */
static __always_inline bool is_hairpin(const struct packet *p, const struct pod *pod)
{
	return is_same(&p->src, &p->dst) && (!pod || !pod->ifindex || is_behind(p->ifindex, pod));
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

/* A host without an address yet asks for one from here. The stack accepts it from nowhere else than as a broadcast. */
static __always_inline bool is_unspecified(const struct address *a)
{
	return !a->word[0] && !a->word[1] && !a->word[3];
}

/* Whether a new packet to the node itself is more than a link needs. */
static __always_inline bool is_judged_locally(const struct packet *p, enum parsed parsed, unsigned long nfct)
{
	if (parsed == UNPARSABLE_ADDRESSES || is_related(nfct))
		return false;
	if (p->neighbour && (nfct & NFCT_INFOMASK) == IP_CT_UNTRACKED)
		return false;
	return !is_link_local(&p->dst) && !is_multicast(&p->dst);
}

/*
 * Judges a new packet to the node itself. What the node opens towards its pods does not come here. entry is
 * where source was read to, if it is not NULL.
 */
static __always_inline int judge_local(struct packet *p, enum parsed parsed, const struct pod *source, struct pod *entry)
{
	const struct pod *own;

	if (!is_link_local(&p->src) && !is_unspecified(&p->src) && judge_source(p, source) == VERDICT_DENY)
		return NF_DROP;
	own = find_own(p, entry);
	if (!own) {
		if (records_wanted && source)
			record_open(p, entry, EGRESS);
		return NF_ACCEPT;
	}
	return judge(p, own, EGRESS, parsed != UNPARSABLE) == VERDICT_DENY ? NF_DROP : NF_ACCEPT;
}
