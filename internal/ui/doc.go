// Package ui serves the map: a page that shows in a browser who may talk to whom, which policies decide it, and what manifests would change.
// It listens on a loopback address only, and answers only the browser that opened the address which the command printed.
package ui
