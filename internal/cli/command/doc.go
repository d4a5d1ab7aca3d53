// Package command is what the commands of kubectl-kidoban share: where they read the cluster from, how they print, and how they end.
package command
