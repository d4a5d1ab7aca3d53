// Package directory names the ends of flows: which pod, node or Service had an address at a time. What it knows comes from
// watches of the API server; an address that was given to another pod has the name of the pod that had it at the time.
package directory
