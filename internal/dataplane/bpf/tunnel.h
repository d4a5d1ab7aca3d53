/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Tunnels. A node decapsulates what is sent to it by certain protocols and UDP ports, and then takes the
 * inner packet for one from another node. A pod could so send what its policies deny, from any address. So
 * only the other ends of tunnels may send such packets to a node.
 */
#pragma once

/* What a node decapsulates: a protocol, or a port of UDP. */
struct tunnel_key {
	__u16 port; /* in host order; 0 for a protocol without ports */
	__u8 protocol;
	__u8 pad;
};

/* Only the keys of these maps count: the memory of an entry may be another's when its value is read. */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct tunnel_key);
	__type(value, __u8);
} tunnels SEC(".maps");

/* Addresses of the nodes and other hosts that this node has tunnels to. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, __u8);
} tunnel_ends SEC(".maps");

/* The interfaces that decapsulated packets come in by. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* index */
	__type(value, __u8);
} tunnel_devices SEC(".maps");

/* Set while the node decapsulates anything. */
volatile bool has_tunnels = false;

/* Set while the kernel does not have the ends of some tunnel: then every address that is no pod's may be one. */
volatile bool any_tunnel_end = false;

static __always_inline bool is_tunnel_end(const struct address *a)
{
	struct network_key key = { .prefixlen = 128, .addr = *a };

	return bpf_map_lookup_elem(&tunnel_ends, &key);
}

static __always_inline bool is_tunnel_device(__u32 ifindex)
{
	return bpf_map_lookup_elem(&tunnel_devices, &ifindex);
}

/* What cannot be read may be anything. */
static __always_inline bool is_encapsulated(const struct packet *p, enum parsed parsed)
{
	struct tunnel_key key = { .port = p->dport, .protocol = p->protocol };

	return parsed != PARSED || bpf_map_lookup_elem(&tunnels, &key);
}

/* Whether the node's own rules have changed the destination, as for a Service. A tunnel's end needs none. */
static __always_inline bool is_redirected(const struct packet *p)
{
	struct nf_conn *ct;

	if (!p->conntrack || !bpf_core_type_exists(struct nf_conn))
		return false;
	ct = bpf_rdonly_cast((void *)p->conntrack, bpf_core_type_id_kernel(struct nf_conn));
	return ct->status & IPS_DST_NAT;
}

/*
 * Whether a packet that its receiver would decapsulate comes from what is no end of a tunnel. Neither is a
 * pod, whatever address it writes, nor a node that sends on what it got for a Service.
 */
__noinline bool is_smuggled(const struct packet *p, enum parsed parsed, bool is_pods)
{
	if (!p || !is_encapsulated(p, parsed))
		return false;
	if (is_pods || is_redirected(p))
		return true;
	return !any_tunnel_end && !is_tunnel_end(&p->src);
}

/*
 * A packet to another node, which may see only this node's address in it. Tunnels between pods are their own
 * affair: these end at pods of this node, or lead through a tunnel to those of another. A frame of its own leaves the
 * stack to the judging of policies.
 */
static __noinline enum verdict judge_tunnel(const struct packet *p, enum parsed parsed, const struct nf_hook_state *state,
					    const struct pod *source, const struct pod *destination)
{
	if (!has_tunnels || destination)
		return VERDICT_ALLOW;
	if (!is_tunnel_end(&p->dst) && (!any_tunnel_end || (state->out && is_tunnel_device(state->out->ifindex))))
		return VERDICT_ALLOW;
	if (!is_smuggled(p, parsed, source || is_workload_interface(state->in)))
		return VERDICT_ALLOW;
	return deny(p, EGRESS, REASON_ENCAPSULATED, audited);
}
