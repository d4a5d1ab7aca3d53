// Package conntrack lists and deletes the connections that the kernel tracks, and makes the kernel track
// them.
package conntrack
