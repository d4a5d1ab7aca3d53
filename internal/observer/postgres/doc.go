// Package postgres is the store of observers in PostgreSQL. Any number of replicas share it.
//
// A part is what was pushed in about an hour, by all replicas, whatever times it is about. It has tables of its own, so that retention
// drops tables and deletes no rows: exact (a row for each report and Exact span), sums (summed up by workload and minute, later by hour)
// and names (ends, decisions and Services, by a number that is derived from their text: replicas agree on it without asking).
//
// A replica that pushes only appends: it holds no lock that another one that pushes waits for, unless both push for the same agent. One
// replica at a time, the one that retains, sums up what was appended since it did so last. Which rows these are, the transactions' numbers
// say: all below a watermark had ended when it was read. Parts are opened, closed and dropped under a lock that excludes pushes.
package postgres
