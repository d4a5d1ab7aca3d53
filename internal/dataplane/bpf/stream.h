/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Answers over TCP. A message may begin and end anywhere in a segment, so the segments of a flow are put together
 * as its client does it. Nothing is taken from a segment that merely looks like a message: it may be the text of
 * another answer, and anyone may have written that. So a stream is followed from its SYN on. Where a segment is
 * missing, nothing is learned until the resolver sends it again.
 *
 * A stream needs no question: the client has opened it, and a segment from elsewhere does not come by the
 * resolver's interface.
 */
#pragma once

#define TCP_SYN 0x02

/* Parts of a segment: a whole message takes three. */
#define PARTS_MAX 16

struct stream_key {
	struct address client, server; /* server: as the client has it, before DNAT */
	__u16 port;                    /* the client's */
	__u16 pad;
};

/* What a resolver sends on a flow, up to the end of the next message. */
struct stream {
	__u32 next;   /* sequence number that comes next */
	__u32 header; /* bytes of the message's length that are there */
	__u32 size;   /* of the message */
	__u32 have;   /* of it */
	__u32 at;     /* what of a segment is being taken */
	__u32 left;
	struct worker w; /* the message is read where it is put together */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct stream_key);
	__type(value, struct stream);
} streams SEC(".maps");

/* What a stream begins as, which is too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stream);
} blank SEC(".maps");

struct tcp_header {
	__be16 source, dest;
	__be32 seq, ack;
	__u8 data_offset; /* in 32-bit words, in the high half */
	__u8 flags;
	__be16 window;
};

/* Reads and learns the message that is complete. */
static __always_inline void learn_message(struct stream *st)
{
	enum answer result;

	if (st->size > MESSAGE_MAX) {
		result = ANSWER_TOO_LONG;
	} else {
		st->w.s.length = st->size;
		result = read_answer(&st->w, true);
		if (result == ANSWERS) {
			learn_records(&st->w);
			result = ANSWER_LEARNED;
		}
	}
	count(COUNTER_ANSWERS + result);
}

struct feed {
	struct stream *stream;
	const struct bpf_dynptr *data;
};

/* Takes from a segment what belongs to one message: its length, or a part of it. */
static long take_part(__u32 i, struct feed *f)
{
	struct stream *st = f->stream;
	__u32 at = st->at, left = st->left, have = st->have, n;
	__u8 buf, *byte;

	(void)i;
	if (!left)
		return 1;
	if (st->header < 2) {
		byte = bpf_dynptr_slice(f->data, at, &buf, sizeof(buf));
		if (!byte)
			return 1;
		st->size = (st->size << 8 | *byte) & 0xffff;
		st->header++;
		st->have = 0;
		st->at = at + 1;
		st->left = left - 1;
		return 0;
	}
	n = st->size - have;
	if (n > left)
		n = left;
	if (have < MESSAGE_MAX && n <= MESSAGE_MAX) {
		barrier_var(have);
		barrier_var(n);
		if (n > MESSAGE_MAX || bpf_dynptr_read(&st->w.s.message[have & MESSAGE_MASK], n, f->data, at, 0))
			return 1;
	}
	st->have = have + n;
	st->at = at + n;
	st->left = left - n;
	if (have + n < st->size)
		return 0;
	learn_message(st);
	st->header = 0;
	st->size = 0;
	return 0;
}

/* Begins to follow a stream, at the resolver's SYN. */
static __always_inline void begin_stream(const struct stream_key *key, __u32 next)
{
	__u32 zero = 0;
	struct stream *st = bpf_map_lookup_elem(&blank, &zero);

	if (!st || bpf_map_update_elem(&streams, key, st, BPF_ANY))
		return;
	st = bpf_map_lookup_elem(&streams, key);
	if (st)
		st->next = next;
}

/* Takes a segment that a resolver sends to a client. */
static __always_inline void take_segment(struct worker *w, const struct bpf_dynptr *data)
{
	struct stream_key key = { .client = w->p.dst, .server = w->server, .port = w->p.dport };
	struct tcp_header buf, *tcp = bpf_dynptr_slice(data, w->u.offset, &buf, sizeof(buf));
	__u32 seq, payload, size, known;
	struct stream *st;

	if (!tcp)
		return;
	seq = bpf_ntohl(tcp->seq);
	if (tcp->flags & TCP_SYN) {
		begin_stream(&key, seq + 1);
		return;
	}
	payload = w->u.offset + (tcp->data_offset >> 4) * 4;
	if (payload >= w->u.end)
		return;
	size = w->u.end - payload;
	st = bpf_map_lookup_elem(&streams, &key);
	if (!st || __sync_val_compare_and_swap(&st->w.taken, 0, 1)) {
		count(COUNTER_ANSWERS + ANSWER_OUT_OF_ORDER);
		return;
	}
	known = st->next - seq; /* bytes that came before, in a segment that comes again */
	if (known < size) {
		struct feed f = { .stream = st, .data = data };

		st->next = seq + size;
		st->at = payload + known;
		st->left = size - known;
		bpf_loop(PARTS_MAX, take_part, &f, 0);
		if (st->left) /* more messages than that in one segment */
			st->next = seq - 1;
	} else if (known != size) {
		count(COUNTER_ANSWERS + ANSWER_OUT_OF_ORDER);
	}
	give_back(&st->w);
}
