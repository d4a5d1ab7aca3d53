package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/events"
)

// Dataplane is one generation of maps and program. Its methods may be called at the same time.
type Dataplane struct {
	opts Options
	objs bpf.FilterObjects
	// inherited is what an earlier generation has learned of names.
	inherited *inheritance
	// adopted are the patterns that have what was learned of their names before they came.
	adopted map[compiler.PatternID]bool
	maps    kernelMaps
	repeats *events.Repeats
	records *events.Repeats // nil without Options.Records
	revoked *revocations

	// The locks are taken in this order: syncMu, mu; and attachMu, the lock of revoked. The lock of repeats is
	// not held together with another.

	// syncMu makes one Sync or FailClosed wait for the other.
	syncMu sync.Mutex
	// mu lets one writer at a time write to maps. Sync holds it for repairBatch entries at most.
	mu      sync.Mutex
	journal *journal // nil if no Sync is under way

	// attachMu guards links and pins, and what the program has about tunnels.
	attachMu   sync.Mutex
	dir        string               // of its pins; empty before Attach
	links      map[string]link.Link // by the name of the pin
	hasTunnels bool
	// judgesLocal is what the program has about traffic to the node itself.
	judgesLocal bool
	// readsOwn: the program reads the answers of resolvers on the node itself.
	readsOwn bool
}

// New loads a generation with empty maps. It judges nothing before Attach: fill it with Sync first. Without
// Attach, Close or the end of the process releases all of it.
func New(opts Options) (*Dataplane, error) {
	opts = opts.withDefaults()
	spec, err := specOf(opts)
	if err != nil {
		return nil, err
	}
	inherited, err := inherit(opts.BPFFS, spec)
	if err != nil {
		return nil, err
	}
	defer inherited.close() // what the program has of it stays
	objs, err := load(spec, inherited.maps)
	if err != nil {
		return nil, err
	}
	d := &Dataplane{opts: opts, objs: *objs, inherited: inherited, adopted: map[compiler.PatternID]bool{}, maps: newKernelMaps(&objs.FilterMaps, &writeCount{variable: objs.Writes})}
	d.revoked = newRevocations(objs.Revoked, objs.RevokedKinds, opts.Sizes.Revoked, d.isPod)
	if d.repeats, err = events.NewRepeats(objs.Counting, opts.Sizes.Repeats); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if opts.Records {
		if d.records, err = events.NewRepeats(objs.Recording, opts.Sizes.Records); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	for prefix, class := range networkForm.standing {
		if err := d.maps.networks.put(networkForm.encodeKey(prefix), networkForm.encodeValue(class)); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if err := d.fillUnlearnable(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close releases the generation in this process. An attached generation goes on judging: its pins keep it.
func (d *Dataplane) Close() error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()

	errs := []error{d.objs.Close()}
	if d.repeats != nil {
		errs = append(errs, d.repeats.Close())
	}
	if d.records != nil {
		errs = append(errs, d.records.Close())
	}
	for _, l := range d.links {
		errs = append(errs, l.Close())
	}
	d.links = nil
	return errors.Join(errs...)
}

// loadSpec is replaced by tests that need another build of the program.
var loadSpec = bpf.LoadFilter

// specOf is the program and its maps with all that the options say.
func specOf(opts Options) (*ebpf.CollectionSpec, error) {
	spec, err := loadSpec()
	if err != nil {
		return nil, fmt.Errorf("read the embedded BPF object: %w", err)
	}
	for name, entries := range map[string]uint32{
		bpf.FilterMapPods:       opts.Sizes.Pods,
		bpf.FilterMapAddresses:  opts.Sizes.Addresses,
		bpf.FilterMapNetworks:   opts.Sizes.Networks,
		bpf.FilterMapRows:       opts.Sizes.Rows,
		bpf.FilterMapPorts:      opts.Sizes.Ports,
		bpf.FilterMapRevoked:    opts.Sizes.revocations(),
		bpf.FilterMapInterfaces: opts.Sizes.Interfaces,
		bpf.FilterMapEvents:     opts.Sizes.EventBytes,
		bpf.FilterMapPaces:      opts.paces(),
		bpf.FilterMapHits:       opts.Sizes.Hits,
		bpf.FilterMapDomains:    opts.Sizes.Domains,
		bpf.FilterMapResolvers:  opts.Sizes.Resolvers,
		bpf.FilterMapLearned:    opts.Sizes.Learned,
		bpf.FilterMapPlaces:     opts.Sizes.Learned,
		bpf.FilterMapNames:      opts.Sizes.Names,
		bpf.FilterMapAsked:      opts.Sizes.Names,
		bpf.FilterMapStreams:    opts.Sizes.streams(),
		bpf.FilterMapMissed:     opts.Sizes.missed(),
	} {
		spec.Maps[name].MaxEntries = entries
	}
	spec.Maps[bpf.FilterMapCounting].InnerMap.MaxEntries = opts.Sizes.Repeats
	spec.Maps[bpf.FilterMapRecording].InnerMap.MaxEntries = opts.Sizes.Records
	pace, ahead := eventPace(opts)
	variables := map[string]any{
		bpf.FilterVarAudited:       opts.Audit,
		bpf.FilterVarEventsWanted:  uint32(opts.Events),
		bpf.FilterVarHitsWanted:    opts.CountHits,
		bpf.FilterVarRecordsWanted: opts.Records,
		bpf.FilterVarEventPace:     pace,
		bpf.FilterVarEventAhead:    ahead,
		bpf.FilterVarReorders:      runtime.GOARCH != "amd64",
	}
	maps.Copy(variables, opts.Names.variables())
	for name, value := range variables {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of the BPF program: %w", name, err)
		}
	}
	if err := spec.Variables[bpf.FilterVarGuarded].Set(uint32(opts.Guard)); err != nil {
		return nil, fmt.Errorf("set the guard of the BPF program: %w", err)
	}
	return spec, nil
}

func load(spec *ebpf.CollectionSpec, inherited map[string]*ebpf.Map) (*bpf.FilterObjects, error) {
	objs := &bpf.FilterObjects{}
	if err := spec.LoadAndAssign(objs, &ebpf.CollectionOptions{MapReplacements: inherited}); err != nil {
		var rejected *ebpf.VerifierError
		if errors.As(err, &rejected) {
			return nil, fmt.Errorf("load the BPF program: %+v", rejected)
		}
		return nil, fmt.Errorf("load the BPF program and its maps: %w", err)
	}
	return objs, nil
}
