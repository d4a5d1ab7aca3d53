/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The time for what needs no better one than a tick: reading a clock costs as much as looking up an entry. */
#pragma once

/* Set before the program is loaded: this CPU may make loads and stores in another order than the program's. */
volatile const bool reorders = false;

/* Keeps the loads and stores before it ahead of those after it. BPF has no weaker barrier before Linux 6.15. */
static __always_inline void keep_order(void)
{
	__u64 word = 0;

	barrier();
	if (reorders)
		__sync_fetch_and_or(&word, 0);
	barrier();
}

/* The last tick in which the program read the clocks, and what it read. */
volatile __u64 tick = 0;
volatile __u64 tick_ns = 0;     /* bpf_ktime_get_ns */
volatile __u32 tick_second = 0; /* bpf_ktime_get_boot_ns */

/* Reads the clocks, once per tick: 1 to 10 ms (CONFIG_HZ). CPUs that begin a tick at the same time all do. */
static __always_inline void begin_tick(void)
{
	const __u64 now = bpf_jiffies64();

	if (tick != now) {
		tick_ns = bpf_ktime_get_ns();
		tick_second = bpf_ktime_get_boot_ns() / 1000000000ULL;
		keep_order();
		tick = now;
	}
	keep_order();
}

/* bpf_ktime_get_ns, at most a tick ago. */
static __always_inline __u64 recent_ns(void)
{
	begin_tick();
	return tick_ns;
}

/* bpf_ktime_get_boot_ns in seconds, at most a tick ago. */
static __always_inline __u32 seconds_now(void)
{
	begin_tick();
	return tick_second;
}
