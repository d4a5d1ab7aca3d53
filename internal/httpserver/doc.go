// Package httpserver makes the HTTP servers of both programs: metrics, probes and the agent's API.
//
// Any pod may connect to some of them, so a server must cost a bounded amount of memory whatever its clients do. A server limits the size of a
// header and the time to send it, its connections in total and by source, the memory of their sockets, and the requests that it works on.
// A new connection always gets in: it displaces the oldest connection of the source that has the most. Metrics and probes are answered from
// snapshots, so that they never wait for the program's own locks.
package httpserver
