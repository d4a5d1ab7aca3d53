// Package pairing makes flows of reports: the node of each end that is a pod reports what that end's policies decided, and
// a flow has both decisions. It has no clock and no state beyond what it is given, and the order of reports of one span
// makes no difference.
package pairing
