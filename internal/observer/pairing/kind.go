package pairing

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// kind is what reports of both nodes about the same connections have in common.
type kind struct {
	source, destination string
	protocol            string
	port                uint16
	continues, reply    bool
}

// kinds returns the kinds of reports. It remembers the ends, which reports share.
type kinds map[*observerapi.End]string

func (k kinds) of(r *store.Report) kind {
	return kind{k.end(r.Source), k.end(r.Destination), r.Protocol, r.Port, r.Continues, r.Reply}
}

// maxEnds bounds the ends that are remembered. Beyond it all are forgotten.
const maxEnds = 100_000

func (k kinds) end(e *observerapi.End) string {
	if name, ok := k[e]; ok {
		return name
	}
	if len(k) >= maxEnds {
		clear(k)
	}
	name := nameOf(e)
	k[e] = name
	return name
}

// nameOf returns what makes an end the same in the reports of two nodes. Only the source's node can know domain names.
func nameOf(e *observerapi.End) string {
	switch {
	case e.UID != "":
		return "uid " + e.UID
	case e.IsNode:
		return "node " + e.Node
	case e.Namespace == "":
		return "address " + e.Address.String() + " " + strings.Join(e.DomainNames, " ")
	}
	var b strings.Builder
	fmt.Fprint(&b, "workload ", e.Namespace, " ", e.Pod)
	if e.Workload != nil {
		fmt.Fprint(&b, " ", e.Workload.Kind, " ", e.Workload.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Labels)) {
		fmt.Fprint(&b, " ", name, "=", e.Labels[name])
	}
	return b.String()
}

// isPod reports whether an agent reports the decisions about an end: it is a pod with an address of its own.
func isPod(e *observerapi.End) bool { return e.Namespace != "" && !e.IsNode }
