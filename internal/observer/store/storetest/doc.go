// Package storetest tests a store: every store must pass the same tests.
package storetest
