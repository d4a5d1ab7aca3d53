//go:build !hostile

package httpserver

// hostileConnections are held at once. `make test-hostile` holds more.
const hostileConnections = 1000
