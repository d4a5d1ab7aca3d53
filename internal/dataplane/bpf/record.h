/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Records: what an observer learns about verdicts. Every packet that is judged is counted under its kind, whatever
 * its verdict and whether or not its pod is isolated. User space reads all counts every few seconds. There is no
 * event for the first packet of a kind. Events and records have budgets and maps of their own, so neither takes
 * anything from the other.
 */
#pragma once

/* Set before the program is loaded. */
volatile const bool records_wanted = false;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__array(values, struct repeats);
} recording SEC(".maps");

/* Where clients' ports begin (net.ipv4.ip_local_port_range). NodePorts, and what nearly all servers listen on, are below. */
#define FIRST_CLIENT_PORT 32768

/*
 * What shows that a packet without an entry in conntrack, or with a new one, does not open a connection. TCP and
 * SCTP have a packet that opens; among the others the server is taken to be the end with the lower port. UDP has
 * only its ports. Of ICMP, conntrack makes an entry for what asks and none for what answers.
 */
static __noinline enum repeat_flags lateness(const struct packet *p, unsigned long nfct)
{
	switch (p->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_SCTP:
		if (p->opens)
			return 0;
		return p->answers || p->sport < p->dport ? REPEAT_CONTINUES | REPEAT_REPLY : REPEAT_CONTINUES;
	case IPPROTO_UDP:
		return p->sport < FIRST_CLIENT_PORT && p->dport >= FIRST_CLIENT_PORT ? REPEAT_CONTINUES | REPEAT_REPLY : 0;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return nfct ? 0 : REPEAT_CONTINUES | REPEAT_REPLY;
	default:
		return 0;
	}
}

static __always_inline bool add_to_record(void *counts, const struct repeat_key *k, const struct packet *p)
{
	struct repeat *r = bpf_map_lookup_elem(counts, k);

	if (!r)
		return false;
	if (!r->packets)
		r->sport = p->sport;
	count_repeat(r, p->len);
	return true;
}

/* Counts the packet in the record of its kind, or of its sender. The verifier checks a function that is not static once. */
__noinline int record(const struct packet *p, const struct pod *pod, const struct finding *f, enum direction direction)
{
	struct repeat_key k;
	struct address end;
	__u32 slot = 0;
	void *counts = bpf_map_lookup_elem(&recording, &slot);

	if (!p || !f || !counts)
		return 0;
	fill_key(&k, p, direction, pod, f);
	k.flags = p->late | (f->place & IF_AUDITED_ENFORCED ? REPEAT_WOULD_BE : 0);
	if (add_to_record(counts, &k, p))
		return 0;
	end = whose(p, &k, pod);
	end.word[0] ^= bpf_htonl(0x01000000); /* no address, so that records have paces beside those of events */
	if (!may_make_event(&end)) {
		sum_up(&k, p, pod);
		if (add_to_record(counts, &k, p))
			return 0;
	}
	begin_count(counts, &k, p, pod);
	if (!add_to_record(counts, &k, p))
		count(COUNTER_UNRECORDED);
	return 0;
}

/* Records a packet of a pod that no policy isolates in the direction. */
static __noinline void record_open(const struct packet *p, const struct pod *pod, enum direction direction)
{
	const struct finding f = { .verdict = VERDICT_ALLOW, .reason = REASON_DEFAULT, .place = direction & 1 };

	record(p, pod, &f, direction);
}
