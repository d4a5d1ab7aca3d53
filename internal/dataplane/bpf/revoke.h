/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Flows that were cut, and what must not open them again. See enum revoked_kind. */
#pragma once

/* A bit for each enum revoked_kind that the map may have. */
volatile __u32 revoked_kinds = 0;

/* Whether the pod's policies deny a flow that the packet's receiver opened. */
static __noinline bool denies_reverse(const struct packet *p, const struct pod *pod, enum direction direction)
{
	const __u32 set = pod->sets[direction & 1];
	struct decision decision = { .action = ACTION_DENY };

	if (!set || pod->flags & POD_AUDIT)
		return false;
	if (look_up(p->protocol, p->sport, set, direction == EGRESS ? &p->src : &p->dst, &decision) && names_on &&
	    (decision.names[0] | decision.names[1]))
		apply_names(p->protocol, p->sport, set, &p->src, &decision);
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
