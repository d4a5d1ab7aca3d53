// Package inspect reads the node that it runs on, and changes nothing: whether its kernel and settings are as
// the dataplane needs, which traffic they lead past the dataplane, and which interfaces lead to pods and
// which out of the node.
package inspect
