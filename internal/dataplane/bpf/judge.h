/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Judging a packet by the policies of the pods at its ends, and denying it for other reasons. */
#pragma once

/* Set before the program is loaded: nothing is denied on this node for another reason than policies. */
volatile const bool audited = false;

/*
 * The decision of a set about the peer and the port, as compiler.Maps defines it. False: Deny of rule 0, also
 * where the maps cannot be read.
 */
static __noinline bool look_up(__u8 protocol, __u16 dport, __u32 set, const struct address *peer, struct decision *found)
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
	decide(protocol, dport, &row, found);
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
		if (names_on && (decision.names[0] | decision.names[1]))
			apply_names(p->protocol, p->dport, set, &p->dst, &decision);
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
