/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Judging a packet by the policies of the pods at its ends, and denying it for other reasons. */
#pragma once

/* Set before the program is loaded: nothing is denied on this node for another reason than policies. */
volatile const bool audited = false;

/*
 * The decision of a set about the peer and the port, as compiler.Maps defines it. False: Deny of rule 0, also
 * where the maps cannot be read.
 *
 * The verifier checks a function that is not static once, and not again for every call; so it asks for a check
 * that the pointers are there. A function of its own leaves the stack to what its callers call next.
 */
__noinline bool look_up(__u8 protocol, __u16 dport, __u32 set, const struct address *peer, struct decision *found)
{
	struct row_key key = { .set = set };
	struct row row;
	enum entry entry;

	if (!peer || !found || !find_class(peer, &key.class))
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

/* What the enforced policies decided before those under audit are asked; none: the enforced ones are asked. */
enum enforced {
	ENFORCED_NONE,
	ENFORCED_ALLOW,
	ENFORCED_DENY,
};

/*
 * Judges one direction of the packet by a set of the pod at one end of it: by the enforced policies, or as if
 * audited ones were enforced. In that case it only reports, and only what the enforced ones decide otherwise. A
 * packet that cannot be read is denied if the pod is isolated.
 */
__noinline enum verdict judge_by(const struct packet *p, const struct pod *pod, enum direction direction, enum enforced enforced,
				 bool is_readable)
{
	struct finding f = { .tier = TIER_NETWORK_POLICY, .reason = REASON_UNPARSABLE };
	struct decision decision = { .action = ACTION_DENY };
	__u32 set;

	if (!p || !pod)
		return VERDICT_DENY;
	f.place = (direction & 1) | (enforced == ENFORCED_NONE ? 0 : IF_AUDITED_ENFORCED);
	set = pod->sets[f.place & (SETS - 1)];
	if (is_readable) {
		f.reason = REASON_DEFAULT;
		if (look_up(p->protocol, p->dport, set, direction == EGRESS ? &p->dst : &p->src, &decision)) {
			if (names_on && (decision.names[0] | decision.names[1]))
				apply_names(p->protocol, p->dport, set, &p->dst, &decision);
			f.rule = decision.rule;
			f.tier = decision.tier;
			f.reason = decision.rule ? REASON_RULE : REASON_DEFAULT;
		}
	}
	if (decision.action == ACTION_ALLOW) {
		if (enforced == ENFORCED_ALLOW)
			return VERDICT_ALLOW;
		f.verdict = enforced == ENFORCED_NONE ? VERDICT_ALLOW : VERDICT_AUDIT_ALLOW;
	} else {
		if (enforced == ENFORCED_DENY)
			return VERDICT_DENY;
		f.verdict = denial(enforced != ENFORCED_NONE || pod->flags & POD_AUDIT);
	}
	report(p, direction, pod, &f);
	return f.verdict;
}

/* Judges one direction of the packet by the policies of the pod at one end of it. */
static __always_inline enum verdict judge(const struct packet *p, const struct pod *pod, enum direction direction, bool is_readable)
{
	enum verdict verdict = VERDICT_ALLOW;

	if (pod->sets[direction])
		verdict = judge_by(p, pod, direction, ENFORCED_NONE, is_readable);
	else if (records_wanted)
		record_open(p, pod, direction);
	if (pod->sets[direction + IF_AUDITED_ENFORCED])
		judge_by(p, pod, direction, verdict == VERDICT_ALLOW ? ENFORCED_ALLOW : ENFORCED_DENY, is_readable);
	return verdict;
}

/* Denies a packet for another reason than policies. */
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
