// Package hubble tests Hubble's Observer API of an observer with the real hubble command: the newest one, of hack/hubbleenv, and one of
// two releases before. Its tests have the build tag hubble: building the commands takes minutes when they are not in the cache.
package hubble
