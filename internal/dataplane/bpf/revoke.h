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

/* How many records of cut flows a packet may belong to: one of each kind for each of its ends. */
#define REVOKED_KEYS (2 * REVOKED_KINDS)

/* Makes one of the keys of the records that the packet may belong to. False: there is no such record. */
static __always_inline bool make_revoked_key(struct revoked_key *key, const struct packet *p, __u32 i)
{
	const bool has_opening = p->protocol == IPPROTO_TCP || p->protocol == IPPROTO_SCTP;
	const bool is_receivers = i & 1;
	const __u32 kind = i / 2;

	if (!(revoked_kinds & 1 << kind) || (kind == REVOKED_SERVER && is_receivers) || (kind == REVOKED_CLIENT && !is_receivers))
		return false;
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
	return true;
}

/*
 * The number of the key of a cut flow's record that the packet may belong to; REVOKED_KEYS: there is none. The
 * record's memory may be another's by the time that it is read: then that one's time holds.
 */
static __noinline __u32 find_revoked(const struct packet *p, __u64 now)
{
	struct revoked_key key;
	struct revocation *found;
	__u32 i;

	for (i = 0; i < REVOKED_KEYS; i++) {
		if (!make_revoked_key(&key, p, i))
			continue;
		found = bpf_map_lookup_elem(&revoked, &key);
		if (found && found->until > now)
			break;
	}
	return i;
}

/* A hit renews the record, but does not write it for every packet. */
static __noinline void renew(const struct packet *p, __u32 i, __u64 now)
{
	struct revoked_key key;
	struct revocation *found, renewed;

	if (!make_revoked_key(&key, p, i))
		return;
	found = bpf_map_lookup_elem(&revoked, &key);
	if (!found)
		return;
	renewed.hold = found->hold;
	renewed.until = now + renewed.hold;
	if (renewed.hold && found->until - now < renewed.hold - renewed.hold / 8)
		bpf_map_update_elem(&revoked, &key, &renewed, BPF_EXIST);
}

/*
 * The next packet of the other end must not open a cut flow again. A TCP SYN is a flow of its own, and so may
 * be what the policies would allow in the other direction too. ICMP's answers open nothing. The key is not kept
 * while policies are asked: the stack is small.
 */
__noinline bool is_revoked(const struct packet *p, const struct pod *source, const struct pod *destination)
{
	const __u64 now = bpf_ktime_get_ns();
	__u32 i;

	if (!p || p->protocol == IPPROTO_ICMP || p->protocol == IPPROTO_ICMPV6)
		return false;
	i = find_revoked(p, now);
	if (i == REVOKED_KEYS)
		return false;
	if (!(destination && denies_reverse(p, destination, EGRESS)) && !(source && denies_reverse(p, source, INGRESS)))
		return false;
	renew(p, i, now);
	return true;
}
