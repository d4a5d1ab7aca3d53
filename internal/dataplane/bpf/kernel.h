/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The few types and fields of the kernel that the program reads. The loader finds their real offsets by their
 * names in the running kernel's BTF (CO-RE), so neither the order of fields nor missing fields matter.
 */
#pragma once

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed int __s32;
typedef signed long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

#define NULL ((void *)0)
#define true 1
#define false 0

/* include/uapi/linux/bpf.h */
enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_RINGBUF = 27,
	BPF_F_NO_PREALLOC = 1,
	BPF_ANY = 0,
	BPF_NOEXIST = 1,
	BPF_EXIST = 2,
};

/* include/net/flow.h */
#define LOOPBACK_IFINDEX 1

/* include/uapi/linux/netfilter.h */
enum {
	NF_DROP = 0,
	NF_ACCEPT = 1,
	NFPROTO_IPV4 = 2,
};

/* include/uapi/linux/netfilter/nf_conntrack_common.h */
enum {
	IP_CT_ESTABLISHED = 0,
	IP_CT_RELATED = 1,
	IP_CT_NEW = 2,
	IP_CT_ESTABLISHED_REPLY = 3,
	IP_CT_RELATED_REPLY = 4,
	IP_CT_UNTRACKED = 7,
	IPS_CONFIRMED = 1 << 3,
	IPS_DST_NAT = 1 << 5,
};

/* include/linux/skbuff.h: _nfct is a pointer to a struct nf_conn with the packet's state in its low bits */
#define NFCT_INFOMASK 7UL
#define NFCT_PTRMASK ~7UL

/* include/uapi/linux/in.h, in6.h, icmpv6.h */
enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_ICMP = 1,
	IPPROTO_TCP = 6,
	IPPROTO_UDP = 17,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_AH = 51,
	IPPROTO_ICMPV6 = 58,
	IPPROTO_DSTOPTS = 60,
	IPPROTO_SCTP = 132,

	NDISC_FIRST = 133, /* router solicitation */
	NDISC_LAST = 137,  /* redirect */
};

/* Packet headers, as on the wire: no relocation. */

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off;
	__u8 ttl;
	__u8 protocol;
	__be16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

/* The first 8 bytes of every extension header; rest is a fragment header's offset and "more" flag. */
struct ipv6_extension {
	__u8 nexthdr;
	__u8 len;
	__be16 rest;
	__u8 more[4];
};

struct port_pair {
	__be16 source;
	__be16 dest;
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

/* include/net/rtnetlink.h: what made an interface; kind is a string such as "veth" */
struct rtnl_link_ops {
	const char *kind;
};

struct net_device {
	int ifindex;
	const struct rtnl_link_ops *rtnl_link_ops;
};

/* include/uapi/linux/in6.h: no address here, but a type of known size to read other memory by */
struct in6_addr {
	union {
		__u32 u6_addr32[4];
	} in6_u;
};

/* include/linux/netfilter.h */
struct nf_hook_state {
	__u8 pf;
	struct net_device *in;
	struct net_device *out;
};

/* include/linux/skbuff.h: data beside the packet, each kind at its offset in units of 8 bytes */
struct skb_ext {
	__u8 offset[1];
};

struct sk_buff {
	unsigned int len;
	unsigned long _nfct;
	__u8 active_extensions;
	struct skb_ext *extensions;
};

/* include/linux/netfilter_bridge.h */
struct nf_bridge_info {
	int physinif;
};

enum skb_ext_id {
	SKB_EXT_BRIDGE_NF,
};

/* include/net/netfilter/nf_conntrack_tuple.h */
union nf_inet_addr {
	__u32 all[4];
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
	struct {
		union nf_inet_addr u3;
		union {
			__be16 all;
		} u;
		__u8 protonum;
	} dst;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

/* include/net/netfilter/nf_conntrack.h; tuplehash[0] is as the client sent it, [1] as replies come back */
struct nf_conn {
	struct nf_conntrack_tuple_hash tuplehash[2];
	unsigned long status;
};

#pragma clang attribute pop

/* include/net/netfilter/nf_bpf_link.h: the program's context, checked by the verifier itself */
struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

/* Opaque; a kfunc's types are compared by kind and name. */
struct __sk_buff {
	__u32 len;
};

struct bpf_dynptr {
	__u64 opaque[2];
} __attribute__((aligned(8)));
