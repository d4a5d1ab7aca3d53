/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Address hints of HTTPS records (RFC 9460, section 7.3). A client may connect to them before it has asked for
 * addresses. They teach nothing: they are noted, so that a denial can say where the address came from.
 */
#pragma once

#define IPV4HINT 4
#define IPV6HINT 6

#define HINT_RECORDS_MAX 4 /* of one answer that are read */
#define HINT_STEPS_MAX 64  /* labels of the target's name and parameters of one record that are read */
#define HINTS_MAX 8        /* addresses of one parameter that are noted */

/* Notes the addresses of one parameter. */
static __always_inline void note_addresses(struct worker *w, __u32 at, __u32 size, enum miss why)
{
	const __u32 step = w->s.type == TYPE_A ? 4 : 16;

	for (__u32 i = 0; i < HINTS_MAX && (i + 1) * step <= size; i++)
		if (read_address(w, at + i * step - RECORD_FIXED))
			note_missed(w, &w->address, why);
}

/* Takes a label of the target's name, which has no pointers, or a parameter behind it. */
static long take_hint(__u32 i, struct notes *n)
{
	struct worker *w = n->worker;
	__u32 at = w->s.at, end = w->s.name_from, key, size;

	(void)i;
	if (at >= end)
		return 1;
	if (!w->s.inside) {
		size = byte_at(&w->s, at);
		w->s.inside = !size;
		w->s.at = at + 1 + size;
		return size > 63;
	}
	key = two_bytes_at(&w->s, at);
	size = two_bytes_at(&w->s, at + 2);
	at += 4;
	if (at + size > end)
		return 1;
	w->s.at = at + size;
	if (key != IPV4HINT && key != IPV6HINT)
		return 0;
	w->s.type = key == IPV4HINT ? TYPE_A : TYPE_AAAA;
	note_addresses(w, at, size, n->why);
	return 0;
}

/* Notes the hints of an answer whose question, for an HTTPS record, has been read. */
__noinline int note_hints(struct worker *w)
{
	struct notes n = { .worker = w };
	__u32 at;

	if (!w)
		return 0;
	n.why = find_patterns(&w->s) ? MISS_HINT : MISS_OTHER_NAME;
	if (read_records(&w->s) != ANSWERS)
		return 0;
	for (__u32 i = 0; i < HINT_RECORDS_MAX && i < w->s.records; i++) {
		at = w->s.record[i];
		w->s.at = at + RECORD_FIXED + 2; /* behind the priority */
		w->s.name_from = at + RECORD_FIXED + two_bytes_at(&w->s, at + 8);
		w->s.inside = 0;
		bpf_loop(HINT_STEPS_MAX, take_hint, &n, 0);
	}
	return 0;
}
