// Package serve is the observer's API for readers over HTTPS: see package observerapi for its answers.
package serve
