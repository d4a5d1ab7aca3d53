// Package observerapi contains what an observer answers: flows with the names and the decisions of both ends. Everything that reads
// flows (the plugin, the map, replay, recommend) reads these types, from an observer or from a file that was recorded.
package observerapi
