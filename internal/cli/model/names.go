package model

// Names returns the names of workloads as text: "namespace/name", with the kind where another workload of the list has the same name.
func Names(list []Workload) func(Workload) string {
	kinds := map[string]map[string]bool{}
	for _, w := range list {
		if kinds[w.String()] == nil {
			kinds[w.String()] = map[string]bool{}
		}
		kinds[w.String()][w.Kind] = true
	}
	return func(w Workload) string {
		if len(kinds[w.String()]) > 1 {
			return w.String() + " (" + w.Kind + ")"
		}
		return w.String()
	}
}
