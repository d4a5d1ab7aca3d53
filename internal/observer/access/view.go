package access

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// View shows flows as a reader may see them, for one answer. It is used by one goroutine.
type View struct {
	// can reports whether the namespace may be read.
	can    func(namespace string) (bool, error)
	asked  time.Time
	all    bool
	known  map[string]bool
	hidden map[string]bool
	// readable is a namespace that the reader could see.
	readable string
	err      error
}

// NewView returns the view of a reader.
func NewView(ctx context.Context, r *Reader) (*View, error) {
	v := &View{can: func(namespace string) (bool, error) { return r.CanRead(ctx, namespace) }, known: map[string]bool{}, hidden: map[string]bool{}}
	v.refresh()
	return v, v.err
}

// Everything returns the view of the observer itself, which hides nothing.
func Everything() *View {
	v := &View{can: func(string) (bool, error) { return true, nil }, known: map[string]bool{}, hidden: map[string]bool{}}
	v.refresh()
	return v
}

// refresh asks again after a time: the view of a follower lives long, and rights may end.
func (v *View) refresh() {
	if time.Since(v.asked) < remembered {
		return
	}
	v.asked = time.Now()
	clear(v.known)
	var err error
	if v.all, err = v.can(""); err != nil {
		v.err = err
	}
}

// All reports whether the reader sees everything.
func (v *View) All() bool { return v.all }

// Err is why the view shows less than the reader may see: the API server could not be asked.
func (v *View) Err() error { return v.err }

// CanRead reports whether the reader sees a namespace.
func (v *View) CanRead(namespace string) bool {
	v.refresh()
	if v.all {
		return true
	}
	if namespace == "" || v.err != nil {
		return false
	}
	allowed, ok := v.known[namespace]
	if !ok {
		if allowed, v.err = v.can(namespace); v.err != nil {
			return false
		}
		v.known[namespace] = allowed
	}
	if allowed {
		v.readable = namespace
	}
	return allowed
}

// Losses returns losses as the reader may see them. Nodes are for readers that see a namespace: one of those that the view was asked about, or
// the one that an answer is about, if any. For others there is one loss for each reason, without a node or a number.
func (v *View) Losses(losses []observerapi.Loss, about string) (out []observerapi.Loss) {
	if v.CanRead(v.readable) || v.CanRead(about) {
		return losses
	}
	for _, l := range losses {
		i := slices.IndexFunc(out, func(o observerapi.Loss) bool { return o.Reason == l.Reason })
		if i < 0 {
			out = append(out, observerapi.Loss{Reason: l.Reason, First: l.First, Last: l.Last})
			continue
		}
		if o := &out[i]; l.First.Before(o.First) {
			o.First = l.First
		}
		if o := &out[i]; l.Last.After(o.Last) {
			o.Last = l.Last
		}
	}
	return out
}

// Hidden returns the namespaces of which Flow has shown nothing but names, in ascending order.
func (v *View) Hidden() []string { return slices.Sorted(maps.Keys(v.hidden)) }

// Flow returns a flow as the reader may see it; nil if it may see neither end. It does not change the flow.
func (v *View) Flow(f *observerapi.Flow) *observerapi.Flow {
	v.refresh()
	if v.all {
		return f
	}
	source, destination := v.CanRead(f.Source.Namespace), v.CanRead(f.Destination.Namespace)
	namespace, _, _ := strings.Cut(f.Service, "/")
	service := namespace == "" || v.CanRead(namespace)
	switch {
	case source && destination && service:
		return f
	case !source && !destination:
		return nil
	}
	shown := *f
	if !source && f.Source.Namespace != "" {
		shown.Source, shown.Egress = v.hide(f.Source), withoutNames(f.Egress)
	}
	if !destination && f.Destination.Namespace != "" {
		shown.Destination, shown.Ingress = v.hide(f.Destination), withoutNames(f.Ingress)
	}
	if !service {
		shown.Service = ""
	}
	shown.Verdict = pairing.Verdict(shown.Egress, shown.Ingress)
	return &shown
}

func (v *View) hide(e observerapi.End) observerapi.End {
	v.hidden[e.Namespace] = true
	return observerapi.End{Namespace: e.Namespace, Workload: e.Workload, Hidden: true}
}

// withoutNames leaves of a decision what became of the packets.
func withoutNames(d *observerapi.Decision) *observerapi.Decision {
	if d == nil {
		return nil
	}
	return &observerapi.Decision{Verdict: d.Verdict}
}
