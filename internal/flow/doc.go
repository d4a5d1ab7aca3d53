// Package flow contains the protocol by which agents push records of flows to an observer.
//
//go:generate go -C ../../hack/proto run . ../.. internal/flow/flow.proto
package flow
