// Package onward sends an observer's flows on: as lines of JSON to files and CloudWatch Logs, and as OTLP logs. Nothing waits for a
// receiver that is slow or away: what its queue has no room for is lost and counted.
package onward
