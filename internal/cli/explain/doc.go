// Package explain answers whether a flow passes, and by which rule or for want of which.
package explain
