/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The maps. The first six are compiler.Maps, whose comment defines how they are read. dataplane.Sizes
 * replaces the sizes that are given here. Integers are in host order unless a comment says otherwise.
 */
#pragma once

/* An IPv6 address, or an IPv4 one as ::ffff:a.b.c.d; in network order. */
struct address {
	__be32 word[4];
};

#define MAPPED_PREFIX bpf_htonl(0xffff)

/* policy.Direction; it indexes pod.sets. */
enum direction {
	INGRESS,
	EGRESS,
};

/* policy.Action. The maps never contain Pass: the compiler resolves it. */
enum action {
	ACTION_ALLOW,
	ACTION_DENY,
};

#define TIER_NETWORK_POLICY 1 /* policy.TierNetworkPolicy */

/* compiler.PodFlags */
enum pod_flags {
	POD_AUDIT = 1,
};

#define SET_DENY_ALL (~0u) /* dataplane.DenyAll */

/* Where a set is in struct pod: the direction, and IF_AUDITED_ENFORCED for what would be if audited policies were enforced. */
enum {
	IF_AUDITED_ENFORCED = 2,
	SETS = 4,
};

struct pod {
	__u32 sets[SETS]; /* compiler.Pod's Sets and, after them, its AuditSets */
	__u32 flags;
	__u32 ifindex; /* of the first of its interfaces, which stands for the pod in struct interface; 0: none is known */
};

/* compiler.InterfaceKind */
enum interface_kind {
	INTERFACE_POD = 1,
	INTERFACE_UPLINK,
};

struct interface {
	__u32 kind;
	__u32 flags; /* enum pod_flags */
	__u32 pod;   /* struct pod's ifindex */
};

struct network_key {
	__u32 prefixlen;
	struct address addr;
};

struct row_key {
	__u32 set;
	__u32 class;
};

/* compiler.Decision */
struct decision {
	__u32 rule;
	__u8 action;
	__u8 tier;
	__u8 names[2];
};

struct row {
	__u32 port_list;
	struct decision default_decision;
};

struct port_key {
	__u32 prefixlen; /* PORT_KEY_EXACT for one port, 16 less for a whole protocol */
	__u32 port_list;
	__u8 protocol;
	__u8 pad;
	__be16 port;
};

#define PORT_KEY_EXACT 64

/*
 * What the servers of cut flows send must not open these flows again from their side. A key names such packets
 * by a pod of this node, from the most precise kind to the coarsest.
 */
enum revoked_kind {
	REVOKED_SERVER, /* from the pod's port */
	REVOKED_CLIENT, /* from that port of any server, to the pod */
	REVOKED_PEER,   /* between the pod and the peer */
	REVOKED_POD,    /* from or to the pod */
	REVOKED_KINDS,
};

/*
 * For REVOKED_PEER and REVOKED_POD protocol is IPPROTO_TCP for all protocols whose flows begin with a packet
 * that says so, and IPPROTO_UDP for all others.
 */
struct revoked_key {
	struct address pod;
	struct address peer; /* of REVOKED_PEER */
	__u16 port;          /* of REVOKED_SERVER and REVOKED_CLIENT, in host order */
	__u8 protocol;
	__u8 pad;
	enum revoked_kind kind;
};

struct revocation {
	__u64 until; /* a time of bpf_ktime_get_ns */
	__u64 hold;  /* a hit holds for as long again; 0: it does not */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, struct pod);
} pods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* index */
	__type(value, struct interface);
} interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32); /* class */
} addresses SEC(".maps");

/*
 * One trie for both families. ::ffff:0:0/96, which is 0.0.0.0/0, is always in it: without it the look-up of
 * an IPv4 address would fall through to ::/0.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, __u32); /* class */
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct row_key);
	__type(value, struct row);
} rows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct port_key);
	__type(value, struct decision);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct revoked_key);
	__type(value, struct revocation);
} revoked SEC(".maps");
