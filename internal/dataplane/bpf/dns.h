/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Questions to resolvers and their answers, on their way through the node. An answer is believed if it comes from
 * a resolver that the agent trusts, by the interface that it has to come by, and if its client asked just that: the
 * same name and type, with the same ID, from the same port.
 */
#pragma once

#define DNS_PORT bpf_htons(53)

/* How long a question waits for its answer. */
#define ASKED_FOR 10000000000ULL

struct asked_key {
	struct address client, server; /* server: as the client has it, before DNAT */
	__u16 port;                    /* the client's */
	__u16 id;
	__u32 type;
};

struct asked {
	__u64 hash; /* of the name and the type */
	__u64 at;   /* bpf_ktime_get_boot_ns */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct asked_key);
	__type(value, struct asked);
} asked SEC(".maps");

/* Whether the client of an established flow opened it to port 53. */
static __always_inline bool is_to_dns_port(unsigned long nfct)
{
	const struct nf_conn *ct;

	if (!bpf_core_type_exists(struct nf_conn))
		return false;
	ct = bpf_rdonly_cast((void *)(nfct & NFCT_PTRMASK), bpf_core_type_id_kernel(struct nf_conn));
	return ct->tuplehash[0].tuple.dst.u.all == DNS_PORT;
}

/*
 * Whether the packet's flow is one that its client opened to port 53. This is asked about every packet of every
 * flow while some policy has names: it is two loads from an entry that conntrack has just read.
 */
static __always_inline bool is_dns_flow(unsigned long nfct)
{
	const unsigned long entry = nfct & NFCT_PTRMASK;
	const struct nf_conn *ct;

	if (!names_on || !has_names || !entry || is_related(nfct) || !bpf_core_type_exists(struct nf_conn))
		return false;
	ct = bpf_rdonly_cast((void *)entry, bpf_core_type_id_kernel(struct nf_conn));
	if (ct->tuplehash[0].tuple.dst.u.all != DNS_PORT)
		return false;
	return ct->tuplehash[0].tuple.dst.protonum == IPPROTO_UDP || ct->tuplehash[0].tuple.dst.protonum == IPPROTO_TCP;
}

static __always_inline bool is_reply(unsigned long nfct)
{
	return (nfct & NFCT_INFOMASK) == IP_CT_ESTABLISHED_REPLY;
}

static __always_inline bool is_resolver(const struct address *a, __u16 port)
{
	struct resolver_key key = { .address = *a, .port = port };

	if (bpf_map_lookup_elem(&resolvers, &key))
		return true;
	key.port = 0;
	return bpf_map_lookup_elem(&resolvers, &key);
}

/*
 * Whether an answer came by the resolver's own interface (ANSWERS), or what becomes of it. Conntrack believes
 * whatever has a flow's addresses and ports: a pod that answers its own question could allow itself any address. A
 * pod's interface must carry that pod's packets only. From a workload's interface that is not known to be one
 * pod's, such as a bridge, nothing is believed.
 */
static __always_inline enum answer check_source(struct worker *w, struct net_device *in)
{
	struct interface known;

	if (!in)
		return ANSWERS;
	if (find_interface(w->p.ifindex, &known) && known.kind == INTERFACE_POD)
		return find_pod(&w->p.src, &w->pod) && known.pod && w->pod.ifindex == known.pod ? ANSWERS : ANSWER_FORGED;
	return is_workload_interface(in) ? ANSWER_SHARED_INTERFACE : ANSWERS;
}

/* Copies the message of a UDP packet. */
static __always_inline bool fetch(struct worker *w, const struct bpf_dynptr *data)
{
	const __u32 at = w->u.offset, end = w->u.end;
	__be16 buf, *length = bpf_dynptr_slice(data, at + 4, &buf, sizeof(buf));
	__u32 size;

	if (!length)
		return false;
	/* Several datagrams in one (GRO) end behind the first. */
	size = bpf_ntohs(*length);
	if (size < 8 || at + size > end)
		return false;
	size -= 8;
	w->s.length = size;
	if (size > MESSAGE_MAX)
		return false;
	barrier_var(size); /* keeps the check next to its use */
	if (size > MESSAGE_MAX)
		return false;
	return !bpf_dynptr_read(w->s.message, size, data, at + 8, 0);
}

/* Remembers a question whose answer may teach something. */
__noinline int note_question(struct worker *w)
{
	struct asked_key key = {};
	struct asked value;

	if (!w || w->s.length < DNS_HEADER)
		return 0;
	if (two_bytes_at(&w->s, 2) & (DNS_RESPONSE | DNS_OPCODE))
		return 0;
	if (read_question(&w->s) != ANSWERS || !find_patterns(&w->s))
		return 0;
	key.client = w->p.src;
	key.server = w->server;
	key.port = w->p.sport;
	key.id = two_bytes_at(&w->s, 0);
	key.type = w->s.type;
	value.hash = w->s.hash;
	value.at = bpf_ktime_get_boot_ns();
	bpf_map_update_elem(&asked, &key, &value, BPF_ANY);
	return 0;
}

/* Whether the client asked this on this flow, not long ago. A question is good for one answer. */
static __noinline bool was_asked(struct worker *w)
{
	struct asked_key key = {
		.client = w->p.dst, .server = w->server, .port = w->p.dport, .id = two_bytes_at(&w->s, 0), .type = w->s.type,
	};
	struct asked *question = bpf_map_lookup_elem(&asked, &key);
	__u64 hash, at;

	if (!question)
		return false;
	hash = question->hash;
	at = question->at;
	if (hash != w->s.hash || bpf_ktime_get_boot_ns() - at > ASKED_FOR)
		return false;
	return !bpf_map_delete_elem(&asked, &key);
}

/* Reads an answer up to its question. ANSWERS: policies may have the name. */
static __always_inline enum answer read_head(struct worker *w)
{
	enum answer result;
	__u32 flags;

	w->s.type = 0;
	if (w->s.length < DNS_HEADER)
		return ANSWER_MALFORMED;
	flags = two_bytes_at(&w->s, 2);
	if (!(flags & DNS_RESPONSE) || flags & (DNS_OPCODE | DNS_RCODE))
		return ANSWER_EMPTY;
	result = read_question(&w->s);
	if (result != ANSWERS)
		return result;
	return find_patterns(&w->s) ? ANSWERS : ANSWER_UNWANTED;
}

/* Finds what an answer of a trusted resolver teaches. ANSWERS: w->s.records. */
__noinline enum answer read_answer(struct worker *w, bool is_stream)
{
	enum answer result;

	if (!w)
		return ANSWER_MALFORMED;
	result = read_head(w);
	if (result == ANSWER_UNWANTED)
		note_answer(w, MISS_OTHER_NAME);
	if (result == ANSWER_EMPTY && w->s.type == TYPE_HTTPS)
		note_hints(w);
	if (result != ANSWERS)
		return result;
	if (!is_stream && !was_asked(w))
		return ANSWER_UNASKED;
	if (two_bytes_at(&w->s, 2) & DNS_TRUNCATED)
		return ANSWER_TRUNCATED;
	return read_records(&w->s);
}

/* Notes the addresses that a resolver without trust gives to a name that policies have. */
__noinline enum answer read_untrusted(struct worker *w)
{
	if (w && read_head(w) == ANSWERS)
		note_answer(w, MISS_UNTRUSTED);
	return ANSWER_UNTRUSTED;
}
