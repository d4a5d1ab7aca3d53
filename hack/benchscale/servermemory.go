package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
)

// serverMemory is what the API server uses after a garbage collection: heap and stacks.
func (c *cluster) serverMemory(ctx context.Context) (uint64, error) {
	text, err := c.clients.RESTClient().Get().AbsPath("/debug/pprof/heap").Param("gc", "1").Param("debug", "1").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	var heap, stacks uint64
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "# HeapInuse = %d", &heap)
		_, _ = fmt.Sscanf(lines.Text(), "# Stack = %d", &stacks)
	}
	if heap == 0 || stacks == 0 {
		return 0, errors.New("the API server's heap profile has no HeapInuse or Stack")
	}
	return heap + stacks, nil
}

// storageLists is how often the API server has listed in etcd what agents list.
func (c *cluster) storageLists(ctx context.Context) (int, error) {
	text, err := c.clients.RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for lines := bufio.NewScanner(strings.NewReader(string(text))); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), "} ")
		if !strings.HasPrefix(name, "apiserver_storage_list_total{") {
			continue
		}
		for _, resource := range []string{"pods", "namespaces", "policyendpoints", "policyendpointslices", "clusterpolicyendpoints"} {
			if strings.Contains(name, `resource="`+resource+`"`) {
				var n float64
				_, _ = fmt.Sscan(value, &n)
				sum += n
			}
		}
	}
	return int(sum), nil
}
