package serve

import (
	"net/http"
	"testing"
)

// All that kubectl kidoban, its map and its scripts of the version before ask for. The list never gets shorter.
func TestRequestsOfTheVersionBefore(t *testing.T) {
	f := newFixture(t)
	f.fill()
	for _, path := range []string{
		"/v1/flows?since=1970-01-01T00:00:00Z&until=1970-01-01T00:00:01Z",
		"/v1/flows?since=2026-01-02T03:00:00Z&until=2026-01-02T04:00:00Z&limit=50000",
		"/v1/flows?newest=true&limit=20000&since=10m0s",
		"/v1/flows?newest=true&limit=1000&namespace=shop&port=5432&verdict=Denied&since=1h",
		"/v1/flows?newest=true&limit=20&workload=shop%2Fweb&verdict=Denied&since=168h",
		"/v1/flows?pod=web-0&namespace=shop&protocol=TCP&policy=NetworkPolicy%2Fshop%2Fshop-policy",
		"/v1/edges?since=24h0m0s&limit=50000", "/v1/hits?since=24h&limit=50000", "/v1/status", "/v1/nodes", "/v1/nodes?node=n1&node=n2",
	} {
		if code, body := f.get("all", path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	for _, path := range []string{"/v1/flows?follow=true&since=1h", "/v1/flows?follow=true&since=2026-01-02T03:04:05.000000006Z&namespace=shop"} {
		res := f.request("all", path)
		if _ = res.Body.Close(); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}
