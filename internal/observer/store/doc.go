// Package store defines what an observer keeps: what each end's node reported about flows, with names, by time. Stores
// contain reports of single ends, which can only be added up. So their content does not depend on the order in which
// agents push. Package pairing makes flows of two ends of what is read.
package store
