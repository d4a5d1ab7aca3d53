/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Addresses that answers led to and that were not learned, and why. The flow log reads here why no name helped a
 * packet that was denied. No decision depends on it.
 */
#pragma once

/* The addresses of one answer that are noted. */
#define NOTED_MAX 16

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct address);
	__type(value, struct missed_address);
} missed SEC(".maps");

/* Notes an address under the name that was asked for. */
__noinline int note_missed(struct worker *w, const struct address *a, enum miss why)
{
	if (!w || !a)
		return 0;
	w->missed.at = seconds_now();
	w->missed.why = why;
	w->missed.text_at = w->s.text_at;
	__builtin_memcpy(w->missed.text, &w->s.text[4], TEXT_MAX);
	bpf_map_update_elem(&missed, a, &w->missed, BPF_ANY);
	return 0;
}

struct notes {
	struct worker *worker;
	enum miss why;
};

static long note_record(__u32 i, struct notes *n)
{
	struct worker *w = n->worker;

	if (i >= w->s.records)
		return 1;
	if (read_address(w, w->s.record[i & (RECORDS_MAX - 1)]))
		note_missed(w, &w->address, n->why);
	return 0;
}

/* Notes the addresses that read_records has found. */
static __always_inline void note_records(struct worker *w, enum miss why)
{
	struct notes n = { .worker = w, .why = why };

	bpf_loop(NOTED_MAX, note_record, &n, 0);
}

/* Notes the addresses of an answer of which the question has been read. */
__noinline int note_answer(struct worker *w, enum miss why)
{
	if (w && read_records(&w->s) == ANSWERS)
		note_records(w, why);
	return 0;
}
