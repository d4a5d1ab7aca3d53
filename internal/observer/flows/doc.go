// Package flows answers questions about flows: from the store, and as they arrive. All that it returns is as one reader may see it.
package flows
