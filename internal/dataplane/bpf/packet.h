/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Reading a packet. The hook comes after defragmentation and after the stack's own checks (ip_rcv, ip6_rcv,
 * br_validate_ipv4), and the packet may lie in pages: everything is read through a dynptr, which copies where
 * it has to. Each header must lie within the packet as the IP header has it, and the packet within the skb.
 */
#pragma once

struct packet {
	struct address src, dst;
	__u64 conntrack; /* address of the struct nf_conn, 0 without */
	__u32 ifindex;
	__u32 port; /* index of the bridge's port that it came in by; ifindex where there is no bridge */
	__u32 len;
	__u16 sport, dport; /* 0 where the protocol has none */
	__u8 family;        /* NFPROTO_* */
	__u8 protocol;
	bool opens;     /* TCP's SYN without ACK, SCTP's INIT */
	bool answers;   /* TCP's SYN with ACK */
	bool neighbour; /* neighbour discovery on its own link */
	bool from_pod;  /* src is a pod's, and nothing shows that another sent it */
	__u8 late;      /* enum repeat_flags, where records are wanted */
};

enum parsed {
	PARSED,
	UNPARSABLE,           /* only the addresses are known */
	UNPARSABLE_ADDRESSES, /* nothing is known */
};

/* More extension headers than any sender has a use for (RFC 8200 has six, each once). */
#define MAX_EXTENSIONS 8

/* Where the upper layer lies. */
struct upper {
	__u32 offset;
	__u32 end; /* of the packet */
};

static __always_inline bool is_mapped(const struct address *a)
{
	return !a->word[0] && !a->word[1] && a->word[2] == MAPPED_PREFIX;
}

/* fe80::/10; IPv4's 169.254.0.0/16 is routed */
static __always_inline bool is_link_local(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

static __always_inline bool is_multicast(const struct address *a)
{
	return (a->word[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000);
}

static __always_inline bool is_same(const struct address *a, const struct address *b)
{
	return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/* Converts an address of conntrack. */
static __always_inline struct address address_of(__u8 family, const union nf_inet_addr *a)
{
	if (family == NFPROTO_IPV4)
		return (struct address){ .word = { 0, 0, MAPPED_PREFIX, a->all[0] } };
	return (struct address){ .word = { a->all[0], a->all[1], a->all[2], a->all[3] } };
}

/*
 * Where the packet ends. Senders of more than 64 KiB (BIG TCP, include/linux/ipv6.h) leave the length 0.
 */
static __always_inline bool ends(struct upper *u, __u32 claimed, __u32 header, __u32 skb_len)
{
	if (claimed == 0 && skb_len > 0xffff)
		claimed = skb_len;
	u->end = claimed;
	return claimed >= header && claimed <= skb_len;
}

static __always_inline enum parsed parse_ipv4(struct packet *p, struct upper *u, const struct bpf_dynptr *data, __u32 skb_len)
{
	struct ipv4_header buf, *ip = bpf_dynptr_slice(data, 0, &buf, sizeof(buf));

	if (!ip)
		return UNPARSABLE_ADDRESSES;
	p->src.word[2] = p->dst.word[2] = MAPPED_PREFIX;
	p->src.word[3] = ip->saddr;
	p->dst.word[3] = ip->daddr;
	p->protocol = ip->protocol;

	u->offset = (ip->version_ihl & 0xf) * 4;
	if ((ip->version_ihl >> 4) != 4 || u->offset < sizeof(buf) || !ends(u, bpf_ntohs(ip->tot_len), u->offset, skb_len))
		return UNPARSABLE;
	/*
	 * A fragment here was not put together: its ports, if it has any, may not be those that the receiver
	 * sees.
	 */
	if (ip->frag_off & bpf_htons(0x3fff))
		return UNPARSABLE;
	return PARSED;
}

/*
 * Steps over one extension header: 1 done, 0 the upper layer begins here, -1 unparsable. See ipv6_skip_exthdr
 * in net/ipv6/exthdrs_core.c.
 */
static __always_inline int skip_extension(struct packet *p, struct upper *u, const struct bpf_dynptr *data)
{
	struct ipv6_extension buf, *ext;
	__u32 len;

	switch (p->protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
		break;
	default:
		return 0;
	}
	ext = bpf_dynptr_slice(data, u->offset, &buf, sizeof(buf));
	if (!ext)
		return -1;
	if (p->protocol == IPPROTO_FRAGMENT) {
		/* RFC 6946: offset 0 and nothing more to come is a whole packet */
		if (ext->rest & bpf_htons(0xfff9))
			return -1;
		len = 8;
	} else if (p->protocol == IPPROTO_AH) {
		len = (ext->len + 2) * 4;
	} else {
		len = (ext->len + 1) * 8;
	}
	p->protocol = ext->nexthdr;
	u->offset += len;
	return u->offset <= u->end ? 1 : -1;
}

static __always_inline enum parsed parse_ipv6(struct packet *p, struct upper *u, const struct bpf_dynptr *data, __u32 skb_len, __u8 *hop_limit)
{
	struct ipv6_header buf, *ip = bpf_dynptr_slice(data, 0, &buf, sizeof(buf));
	__u32 payload;
	int more = 1;

	if (!ip)
		return UNPARSABLE_ADDRESSES;
	__builtin_memcpy(&p->src, ip->saddr, sizeof(p->src));
	__builtin_memcpy(&p->dst, ip->daddr, sizeof(p->dst));
	p->protocol = ip->nexthdr;
	*hop_limit = ip->hop_limit;

	payload = bpf_ntohs(ip->payload_len);
	u->offset = sizeof(buf);
	if ((*(__u8 *)ip >> 4) != 6 || !ends(u, payload || skb_len <= 0xffff ? payload + sizeof(buf) : 0, sizeof(buf), skb_len))
		return UNPARSABLE;
	for (int i = 0; i <= MAX_EXTENSIONS; i++) {
		more = skip_extension(p, u, data);
		if (more <= 0)
			break;
	}
	return more == 0 ? PARSED : UNPARSABLE;
}

/* Reads ports and flags of the upper layer. A header that is cut off is unparsable. */
static __always_inline enum parsed parse_upper(struct packet *p, const struct upper *u, const struct bpf_dynptr *data, __u8 hop_limit)
{
	struct port_pair buf, *ports;
	__u8 byte, *b;
	__u32 size;

	switch (p->protocol) {
	case IPPROTO_TCP:
		size = 20;
		break;
	case IPPROTO_UDP:
		size = 8;
		break;
	case IPPROTO_SCTP:
		size = 12;
		break;
	case IPPROTO_ICMPV6:
		if (p->family == NFPROTO_IPV4 || hop_limit != 255 || u->offset >= u->end)
			return PARSED;
		b = bpf_dynptr_slice(data, u->offset, &byte, sizeof(byte));
		p->neighbour = b && *b >= NDISC_FIRST && *b <= NDISC_LAST;
		return PARSED;
	default:
		return PARSED;
	}
	if (u->offset + size > u->end)
		return UNPARSABLE;
	ports = bpf_dynptr_slice(data, u->offset, &buf, sizeof(buf));
	if (!ports)
		return UNPARSABLE;
	p->sport = bpf_ntohs(ports->source);
	p->dport = bpf_ntohs(ports->dest);
	if (p->protocol == IPPROTO_TCP) {
		b = bpf_dynptr_slice(data, u->offset + 13, &byte, sizeof(byte)); /* flags */
		p->opens = b && (*b & 0x12) == 0x02;
		p->answers = b && (*b & 0x12) == 0x12;
	} else if (p->protocol == IPPROTO_SCTP && u->offset + 12 < u->end) {
		b = bpf_dynptr_slice(data, u->offset + 12, &byte, sizeof(byte)); /* type of the first chunk */
		p->opens = b && *b == 1;
	}
	return PARSED;
}

static __always_inline enum parsed parse_data(struct packet *p, struct upper *u, const struct bpf_dynptr *data, __u32 skb_len)
{
	__u8 hop_limit = 0;
	enum parsed result;

	if (p->family == NFPROTO_IPV4)
		result = parse_ipv4(p, u, data, skb_len);
	else
		result = parse_ipv6(p, u, data, skb_len, &hop_limit);
	if (result != PARSED)
		return result;
	return parse_upper(p, u, data, hop_limit);
}

static __noinline enum parsed parse(struct packet *p, struct sk_buff *skb)
{
	struct bpf_dynptr data;
	struct upper u = {};

	if (bpf_dynptr_from_skb((struct __sk_buff *)skb, 0, &data))
		return UNPARSABLE_ADDRESSES;
	return parse_data(p, &u, &data, skb->len);
}
