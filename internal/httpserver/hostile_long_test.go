//go:build hostile

package httpserver

const hostileConnections = 10000
