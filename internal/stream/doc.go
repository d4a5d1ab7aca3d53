// Package stream contains the protocol between the agents and the controller, and the names by which they find
// each other.
//
//go:generate go -C ../../hack/proto run . ../.. internal/stream/stream.proto
package stream
