// Package observe tests that what operators are given fits the code: the alerts and the dashboard of config/prometheus and the
// table of docs/metrics.md name metrics that exist, each panel shows something of a real cluster's metrics (testdata/dashboard.txt is what),
// and the flow log's lines keep to their JSON Schema.
package observe
