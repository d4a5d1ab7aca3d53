/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Reading a DNS message (RFC 1035, section 4) that lies in scratch memory. All of it is walked before anything is
 * learned: of a message with one wrong length, nothing is.
 *
 * No compression pointer is followed. The name that was asked for stands in the question, uncompressed. Who owns
 * the records of the answer section does not matter: the resolver reports what the answer to the question is, also
 * over CNAMEs, and it could give any address under the right name as well. So a pointer just ends a name, and no
 * cycle can be walked.
 *
 * What the verifier needs: offsets are masked, and the state of every loop is in a map. What is in a map is unknown
 * to the verifier, so that all rounds of a loop look the same to it.
 */
#pragma once

/* A power of two, so that offsets can be masked. */
#define MESSAGE_MAX 8192
#define MESSAGE_MASK (MESSAGE_MAX - 1)
#define MESSAGE_SLACK 32 /* bytes that may be read past a masked offset */

#define RECORDS_MAX 256 /* addresses that are learned from one answer; a power of two */

#define DNS_HEADER 12
#define DNS_RESPONSE 0x8000
#define DNS_OPCODE 0x7800
#define DNS_TRUNCATED 0x0200
#define DNS_RCODE 0x000f

#define TYPE_A 1
#define TYPE_AAAA 28
#define TYPE_OPT 41
#define TYPE_HTTPS 65
#define CLASS_IN 1

#define RECORD_FIXED 10 /* type, class, TTL, length of data */

/* The text ends at TEXT_LAST, with a zero behind it. Four bytes in front of it are for the length of a trie's key. */
#define TEXT_LAST 254

enum walk_state {
	WALKING,
	WALKED,
	MALFORMED,
};

/* Where one message is worked on. */
struct scratch {
	__u32 length;    /* of the message */
	__u32 at;        /* where the walk stands */
	__u32 left;      /* bytes of the label, or records of the message, still to come */
	__u32 answers;   /* records of the answer section still to come */
	__u32 inside;    /* between an owner name and its record's fixed part */
	__u32 name_from; /* where the owner name began */
	__u32 state;     /* enum walk_state */
	__u32 type;      /* asked for; 0: of another class, or not read */
	__u32 foreign;   /* the name has a byte that no pattern can have */
	__u32 text_at;   /* where the canonical text begins */
	__u32 records;
	__u32 now;     /* seconds */
	__u32 pattern; /* that is learned under */
	__u64 hash;    /* of the name and the type */
	__u64 name;    /* of the hash and the pattern */
	__u32 patterns[PATTERNS_MAX];
	__u16 record[RECORDS_MAX]; /* offsets of the fixed parts of the records to learn */
	__u8 text[4 + 2 * TEXT_MAX];
	__u8 message[2 * MESSAGE_MAX + MESSAGE_SLACK]; /* twice: a part of a message may begin anywhere in it */
};

/* Random, so that no one can make names that collide. A collision only makes two names share a limit. */
volatile const __u64 hash_seed = 0;

/*
 * DEFINE_LOOP(f, limit) makes f_loop(s), which calls f(s) until it returns false, `limit` times at most. A round
 * of bpf_loop is a call through a pointer and costs more than most bodies: each makes four calls.
 */
#define DEFINE_LOOP(f, limit)                              \
	static long f##_round(__u32 i, struct scratch **p) \
	{                                                  \
		struct scratch *s = *p;                    \
                                                           \
		(void)i;                                   \
		for (int j = 0; j < 4; j++)                \
			if (!f(s))                         \
				return 1;                  \
		return 0;                                  \
	}                                                  \
	static __noinline void f##_loop(struct scratch *s) \
	{                                                  \
		bpf_loop(((limit) + 3) / 4, f##_round, &s, 0); \
	}

static __always_inline __u32 byte_at(const struct scratch *s, __u32 at)
{
	return s->message[at & MESSAGE_MASK];
}

static __always_inline __u32 two_bytes_at(const struct scratch *s, __u32 at)
{
	const __u8 *b = &s->message[at & MESSAGE_MASK];

	return b[0] << 8 | b[1];
}

static __always_inline __u32 four_bytes_at(const struct scratch *s, __u32 at)
{
	const __u8 *b = &s->message[at & MESSAGE_MASK];

	return (__u32)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

static __always_inline __u64 mix(__u64 h, __u64 v)
{
	h = (h ^ v) * 0x9ddfea08eb382d69ULL;
	return h ^ h >> 32;
}

static __always_inline bool malformed(struct scratch *s)
{
	s->state = MALFORMED;
	return false;
}

/* Other bytes may be a dot, or read as a length, and make one label pass for two. */
static __always_inline bool is_label_byte(__u8 c)
{
	return (__u8)(c - 'a') < 26 || (__u8)(c - '0') < 10 || c == '-' || c == '_';
}

/* Takes one byte of the question's name. There is nothing before a question to point at. */
static __always_inline bool take_name_byte(struct scratch *s)
{
	__u32 at = s->at, left = s->left, text_at;
	__u8 c = byte_at(s, at);

	if (at >= s->length)
		return malformed(s);
	s->at = at + 1;
	if (!left) {
		if (!c) {
			s->state = WALKED;
			return false;
		}
		if (c > 63)
			return malformed(s);
		left = c + 1;
		c = '.';
	} else {
		if ((__u8)(c - 'A') < 26)
			c += 'a' - 'A';
		if (!is_label_byte(c))
			s->foreign = 1;
	}
	s->left = left - 1;
	s->hash = mix(s->hash, c);
	text_at = s->text_at - 1;
	if (!text_at) /* longer than 255 bytes on the wire */
		return malformed(s);
	s->text_at = text_at;
	s->text[4 + (text_at & 0xff)] = c;
	return true;
}

DEFINE_LOOP(take_name_byte, 256)

/* Reads the question: its name, and what it asks for. ANSWERS: an address that may be wanted. */
static __always_inline enum answer read_question(struct scratch *s)
{
	__u32 class;

	if (s->length < DNS_HEADER || two_bytes_at(s, 4) != 1)
		return ANSWER_MALFORMED;
	s->at = DNS_HEADER;
	s->left = 0;
	s->foreign = 0;
	s->hash = hash_seed;
	s->text_at = TEXT_LAST + 1;
	s->state = WALKING;
	take_name_byte_loop(s);
	if (s->state != WALKED || s->at + 4 > s->length)
		return ANSWER_MALFORMED;
	s->type = two_bytes_at(s, s->at);
	class = two_bytes_at(s, s->at + 2);
	s->at += 4;
	s->hash = mix(s->hash, s->type);
	if (class != CLASS_IN)
		s->type = 0;
	return s->type == TYPE_A || s->type == TYPE_AAAA ? ANSWERS : ANSWER_EMPTY;
}

/* Finds the patterns of the question's name. The root's text is empty, and it is in no pattern. */
static __always_inline bool find_patterns(struct scratch *s)
{
	const __u32 from = s->text_at & 0xff, bits = TEXT_MAX * 8;
	struct domain_key *key = (void *)&s->text[from];
	const struct domain *domain;

	if (s->foreign || s->text_at > TEXT_LAST)
		return false;
	s->text[4 + TEXT_LAST + 1] = 0;
	__builtin_memcpy(&s->text[from], &bits, sizeof(bits));
	domain = bpf_map_lookup_elem(&domains, key);
	if (!domain)
		return false;
	__builtin_memcpy(s->patterns, domain->patterns, sizeof(s->patterns));
	return s->patterns[0];
}

/* Takes a record whose owner name has been walked. */
static __always_inline bool take_record(struct scratch *s)
{
	__u32 at = s->at, type, class, size;

	if (at + RECORD_FIXED > s->length)
		return malformed(s);
	type = two_bytes_at(s, at);
	class = two_bytes_at(s, at + 2);
	size = two_bytes_at(s, at + 8);
	if (at + RECORD_FIXED + size > s->length)
		return malformed(s);
	if (s->answers && type == s->type && class == CLASS_IN) {
		if (type != TYPE_HTTPS && size != (type == TYPE_A ? 4 : 16))
			return malformed(s);
		if (s->records < RECORDS_MAX) {
			s->record[s->records & (RECORDS_MAX - 1)] = at;
			s->records++;
		}
	}
	/* The upper bits of an extended rcode (RFC 6891): the answer is an error after all. */
	if (type == TYPE_OPT && byte_at(s, at + 4))
		return malformed(s);
	if (s->answers)
		s->answers--;
	s->left--;
	s->inside = 0;
	s->at = at + RECORD_FIXED + size;
	return true;
}

/* Takes one label of an owner name, and with the last one the record behind it. */
static __always_inline bool walk(struct scratch *s)
{
	__u32 at = s->at, b;

	if (!s->left) {
		s->state = at == s->length ? WALKED : MALFORMED;
		return false;
	}
	if (at >= s->length)
		return malformed(s);
	if (!s->inside) {
		s->inside = 1;
		s->name_from = at;
	}
	b = byte_at(s, at);
	if (b >= 0xc0) {
		/* RFC 1035: to a prior occurrence */
		if (at + 2 > s->length || (two_bytes_at(s, at) & 0x3fff) >= s->name_from)
			return malformed(s);
		s->at = at + 2;
		return take_record(s);
	}
	if (b > 63 || at + 1 + b - s->name_from > 255)
		return malformed(s);
	s->at = at + 1 + b;
	return b ? true : take_record(s);
}

/* Each round takes two bytes at least, but for the last one. */
DEFINE_LOOP(walk, MESSAGE_MAX / 2 + 1)

/* Finds the records with addresses. */
static __always_inline enum answer read_records(struct scratch *s)
{
	s->answers = two_bytes_at(s, 6);
	s->left = s->answers + two_bytes_at(s, 8) + two_bytes_at(s, 10);
	s->inside = 0;
	s->records = 0;
	s->state = WALKING;
	walk_loop(s);
	if (s->state != WALKED)
		return ANSWER_MALFORMED;
	return s->records ? ANSWERS : ANSWER_EMPTY;
}
