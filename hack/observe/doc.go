// Package observe tests that what operators are given fits the code: the alerts and the dashboard of config/prometheus and the
// table of docs/metrics.md name metrics that exist, and the flow log's lines keep to their JSON Schema.
package observe
