/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who sent a packet: whether its source address may come in by its interface. */
#pragma once

/* dataplane.Guard: what becomes of an unknown address behind a workload's interface. */
enum guard {
	GUARD_OFF,
	GUARD_AUDIT,
	GUARD_ON,
};

/* Set before the program is loaded. */
volatile const enum guard guarded = GUARD_OFF;

/* Set while the map has no room for some pods: an unknown address may be one of theirs. */
volatile bool pods_full = false;

/* On a bridge a pod can write another's address. */
static __always_inline bool is_sender(const struct packet *p, const struct pod *source)
{
	return source && p->port == p->ifindex && (!source->ifindex || is_behind(p->ifindex, source));
}

/*
 * A packet out of an interface of a pod must have one of that pod's addresses. The reverse is no rule: a
 * pod's packet may come in by another interface, as when it left the node and came back. But another node
 * sends no packet of this node's pods through a tunnel.
 */
__noinline enum verdict judge_source(const struct packet *p, const struct pod *source)
{
	struct interface in;

	if (!p)
		return VERDICT_DENY;
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
__noinline bool may_report_on_flow(const struct packet *p, const struct pod *source)
{
	struct interface in;
	struct nf_conn *ct;

	if (!p)
		return false;
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
 * The stack does not forward link-local addresses, but a bridge does between its pods. Policies contain other
 * addresses of these pods, so they cannot judge such a packet.
 */
static __always_inline bool is_link_local_traffic(const struct packet *p)
{
	return is_link_local(&p->dst) || (is_link_local(&p->src) && !is_multicast(&p->dst));
}
