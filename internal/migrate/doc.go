// Package migrate is the roof over what only migration from other engines needs, one directory for each engine. These packages
// import the pipeline; internal/cli/migrate alone imports them.
package migrate
