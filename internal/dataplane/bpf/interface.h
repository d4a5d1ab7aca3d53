/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The interface, or the port of a bridge, that a packet came in by or leaves by. */
#pragma once

/* The bridge's port that a packet came in by, or else the interface. */
static __always_inline __u32 port_of(struct sk_buff *skb, __u32 ifindex)
{
	struct nf_bridge_info *bridge;
	__u64 extensions;

	if (!bpf_core_field_exists(struct nf_bridge_info, physinif) || !bpf_core_enum_value_exists(enum skb_ext_id, SKB_EXT_BRIDGE_NF))
		return ifindex;
	if (!(skb->active_extensions & 1 << bpf_core_enum_value(enum skb_ext_id, SKB_EXT_BRIDGE_NF)))
		return ifindex;
	extensions = (__u64)skb->extensions + skb->extensions->offset[bpf_core_enum_value(enum skb_ext_id, SKB_EXT_BRIDGE_NF)] * 8;
	bridge = bpf_rdonly_cast((void *)extensions, bpf_core_type_id_kernel(struct nf_bridge_info));
	return bridge->physinif ?: ifindex;
}

/* Pods are behind interfaces of these kinds, unless the interface is known to lead out of the node. */
static __noinline bool is_workload_interface(struct net_device *dev)
{
	struct interface known;
	struct in6_addr *kind;
	__u32 first, second;

	if (!dev || !dev->rtnl_link_ops)
		return false;
	kind = bpf_rdonly_cast((void *)dev->rtnl_link_ops->kind, bpf_core_type_id_kernel(struct in6_addr));
	first = bpf_ntohl(kind->in6_u.u6_addr32[0]);
	second = bpf_ntohl(kind->in6_u.u6_addr32[1]);
	if (!(first == 0x76657468 && second >> 24 == 0) &&      /* "veth" */
	    !(first == 0x62726964 && second >> 8 == 0x676500)) /* "bridge" */
		return false;
	return !find_interface(dev->ifindex, &known) || known.kind != INTERFACE_UPLINK;
}
