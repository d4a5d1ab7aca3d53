package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/matrix"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// most pods that a lab makes: each is a namespace, and each two are connected.
const most = 250

// otherPort stands for one that no rule names.
const otherPort = 47

// A lab is the matrix and who takes part in it.
type lab struct {
	cluster *model.Cluster
	table   *matrix.Table
	pods    map[*model.Pod]*host
	outside *host
	names   map[string][]netip.Addr // of hosts outside
	// resolver is the pod that answers for them, or nil.
	resolver *model.Pod
	probes   []*probe
	cells    map[*probe][2]int // row and column
	meant    map[*probe]bool
	sctp     int // cells that are not measured
}

func inside(ctx context.Context, env *command.Env, o *options) error {
	begun := time.Now()
	in, err := o.read(ctx, env)
	if err != nil {
		return err
	}
	if err := unix.Mount("bpf", bpffs, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system of the lab's own on %s: %w", bpffs, err)
	}
	if err := dataplane.Check(dataplane.Options{BPFFS: bpffs}); err != nil {
		return err
	}
	c := in.cluster
	l := &lab{cluster: c, names: in.matrix.Names, resolver: in.resolver, table: &matrix.Table{Matrix: c.Matrix(in.matrix), Notes: in.notes()}, pods: map[*model.Pod]*host{}, cells: map[*probe][2]int{}, meant: map[*probe]bool{}}
	if len(c.Workloads()) == 0 {
		return errors.New("these manifests have no pods with addresses of their own: give the workloads too")
	}
	l.table.Assumed, l.table.AssumesPrivate = marks(l.table.Matrix, in.assumed), marks(l.table.Matrix, in.private)
	progress := func(format string, args ...any) {
		if env.Interactive() {
			fmt.Fprintf(env.ErrOut, "\r\x1b[K"+format, args...)
		}
	}
	defer progress("")
	progress("making network namespaces …")
	if err := l.build(ctx, in.matrix.Outside); err != nil {
		return err
	}
	d, err := enforce(c, l.pods, l.trusted())
	if d != nil {
		defer func() { _ = d.Close() }()
	}
	if err != nil {
		return err
	}
	progress("resolving names …")
	if err := l.resolve(ctx); err != nil {
		return err
	}
	l.plan()
	err = run(ctx, l.probes, func(p *probe) bool { return l.meant[p] }, func(done int) {
		progress("%d of %d connections …", done, len(l.probes))
	})
	if err != nil {
		return err
	}
	wrong := l.measure()
	progress("")
	width := o.width
	if width == 0 {
		width = env.Width()
	}
	if err := l.table.Print(env, o.output, width); err != nil {
		return err
	}
	in.writeNotes(env)
	l.summarize(env, wrong, time.Since(begun))
	if len(l.probes) == 0 {
		return errors.New("no connection was made: there are none to ask about, or those of SCTP only, which the lab does not make")
	}
	return command.Yes(len(wrong) == 0)
}

// build makes the router, the pods with their servers, and the world outside.
func (l *lab) build(ctx context.Context, outside []netip.Addr) error {
	if err := makeRouter(); err != nil {
		return fmt.Errorf("make a router of this network namespace: %w", err)
	}
	ports := map[model.Workload][]model.Port{}
	for _, column := range l.table.Columns {
		ports[column.Workload] = append(ports[column.Workload], column.Port)
	}
	for i := range l.cluster.Pods {
		p := &l.cluster.Pods[i]
		if !policy.IsPeer(&p.Pod) || ports[p.Workload] == nil && p != l.resolver {
			continue
		}
		if len(l.pods) == most {
			return fmt.Errorf("more than %d pods: give fewer namespaces (-n) or --replicas=1", most)
		}
		h, err := addHost(len(l.pods), policy.PodAddresses(&p.Pod))
		if err != nil {
			return fmt.Errorf("pod %s: %w", p.Key(), err)
		}
		l.pods[p] = h
		wanted := ports[p.Workload]
		if p == l.resolver {
			h.zone = l.names
			if !slices.Contains(wanted, dnsPort) {
				wanted = append(slices.Clone(wanted), dnsPort)
			}
		}
		if err := h.serve(ctx, wanted); err != nil {
			return fmt.Errorf("pod %s: %w", p.Key(), err)
		}
	}
	workloads := map[model.Workload]bool{}
	for _, a := range outside {
		workloads[model.Outside(a)] = true
	}
	outside = slices.Clone(outside)
	for name, addrs := range l.names {
		workloads[model.DomainName(name)] = true
		outside = append(outside, addrs...)
	}
	if len(outside) == 0 {
		return nil
	}
	h, err := addHost(len(l.pods), outside)
	if err != nil {
		return fmt.Errorf("the world outside: %w", err)
	}
	l.outside = h
	seen := map[model.Port]bool{}
	var all []model.Port
	for w := range workloads {
		for _, p := range ports[w] {
			if !seen[p] {
				seen[p] = true
				all = append(all, p)
			}
		}
	}
	return h.serve(ctx, all)
}

// member is one address of a workload.
type member struct {
	host *host
	addr netip.Addr
}

func (l *lab) members(w model.Workload) []member {
	if w.Kind == "Address" {
		return []member{{l.outside, netip.MustParseAddr(w.Name)}}
	}
	if w.Kind == "DomainName" {
		var out []member
		for _, a := range l.names[w.Name] {
			out = append(out, member{l.outside, a})
		}
		return out
	}
	var out []member
	for p, h := range l.pods {
		if p.Workload == w {
			for _, a := range h.addresses {
				out = append(out, member{h, a})
			}
		}
	}
	return out
}

// plan lists the connections between all pods of each row and column.
func (l *lab) plan() {
	evaluator := model.NewEvaluator(l.cluster).WithNames(l.names)
	rows := make([][]member, len(l.table.Rows))
	for i, row := range l.table.Rows {
		rows[i] = l.members(row)
	}
	columns := map[model.Workload][]member{}
	for _, column := range l.table.Columns { // more than the rows: names, and workloads that are only reached
		if w := column.Workload; columns[w] == nil {
			columns[w] = l.members(w)
		}
	}
	for i := range l.table.Rows {
		for j, column := range l.table.Columns {
			port := column.Port
			if l.table.Cells[i][j] == model.NotAsked {
				continue
			}
			if port.Protocol == policy.SCTP {
				l.sctp++
				continue
			}
			if port.Number == 0 {
				port.Number = otherPort
			}
			for _, from := range rows[i] {
				for _, to := range columns[column.Workload] {
					if from.host == to.host || from.addr.Is4() != to.addr.Is4() {
						continue
					}
					p := &probe{from: from.host, source: from.addr, to: netip.AddrPortFrom(to.addr, port.Number), protocol: port.Protocol}
					l.probes = append(l.probes, p)
					l.cells[p] = [2]int{i, j}
					l.meant[p] = evaluator.Allows(p.flow())
				}
			}
		}
	}
}

func (p *probe) flow() policy.Flow {
	return policy.Flow{Source: p.source, Destination: p.to.Addr(), Protocol: p.protocol, Port: p.to.Port()}
}

// measure folds the probes into the table, and returns those that went otherwise than is meant.
func (l *lab) measure() (wrong []*probe) {
	l.table.Measured = make([][]model.Verdict, len(l.table.Rows))
	for i := range l.table.Measured {
		l.table.Measured[i] = make([]model.Verdict, len(l.table.Columns))
	}
	for _, p := range l.probes {
		at := l.cells[p]
		cell := &l.table.Measured[at[0]][at[1]]
		v := model.Denied
		if p.answered {
			v = model.Allowed
		}
		if *cell != model.NotAsked && *cell != v {
			v = model.Partial
		}
		*cell = v
		if p.answered != l.meant[p] {
			wrong = append(wrong, p)
		}
	}
	return wrong
}

func (l *lab) summarize(env *command.Env, wrong []*probe, took time.Duration) {
	for _, p := range wrong {
		fmt.Fprintf(env.ErrOut, "%s → %s %s: answered %t, expected %t\n", p.source, p.to, p.protocol, p.answered, l.meant[p])
	}
	if l.sctp > 0 {
		fmt.Fprintf(env.ErrOut, "SCTP is not measured: %d cells have the expected verdict only\n", l.sctp)
	}
	if len(l.probes) == 0 {
		return
	}
	if len(wrong) == 0 {
		fmt.Fprintf(env.ErrOut, "%d connections between %d pods in %.1f s: all as expected\n", len(l.probes), len(l.pods), took.Seconds())
		return
	}
	fmt.Fprintf(env.ErrOut, "%d of %d connections did not go as expected\n", len(wrong), len(l.probes))
}
