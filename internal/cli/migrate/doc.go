// Package migrate leads away from other engines: from Calico. docs/migrate-calico.md has the order of steps.
package migrate
