/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What conntrack says about the flow that a packet belongs to. */
#pragma once

/*
 * An ICMP error about a flow, which conntrack looks up by the packet inside, or a flow that a helper expects.
 */
static __always_inline bool is_related(unsigned long nfct)
{
	const unsigned long info = nfct & NFCT_INFOMASK;

	return info == IP_CT_RELATED || info == IP_CT_RELATED_REPLY;
}

/* A packet of a flow that both ends have sent packets of, or the answer to the first one. */
static __always_inline bool is_established(unsigned long nfct)
{
	const unsigned long info = nfct & NFCT_INFOMASK;

	return nfct & NFCT_PTRMASK && (info == IP_CT_ESTABLISHED || info == IP_CT_ESTABLISHED_REPLY);
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
