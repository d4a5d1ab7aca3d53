package dataplane

// SetJudgesLocal makes the program judge traffic from pods to the node itself by their entries under compiler.OwnAddress, or not. Only
// while it does, while there are tunnels, or with Options.Records, the program is attached to the local-in hook. It may be called before
// Attach, and again after an error.
func (d *Dataplane) SetJudgesLocal(judges bool) error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()
	if err := d.objs.JudgesLocal.Set(judges); err != nil {
		return err
	}
	d.judgesLocal = judges
	return d.updateLocal()
}

// needsLocal reports whether the program has to be attached to the local-in hook. The caller holds attachMu.
func (d *Dataplane) needsLocal() bool {
	return d.hasTunnels || d.judgesLocal || d.readsOwn || d.opts.Records
}

// needsLocalOut reports whether the program has to be attached to the local-out hook. The caller holds attachMu.
func (d *Dataplane) needsLocalOut() bool { return d.readsOwn }

// SetReadsOwn makes the program read the answers of resolvers on the node itself, such as NodeLocal DNSCache, or not. Only while it does, the
// program is attached to the local-out hook. It may be called before Attach, and again after an error.
func (d *Dataplane) SetReadsOwn(reads bool) error {
	d.attachMu.Lock()
	defer d.attachMu.Unlock()
	if err := d.objs.ReadsOwn.Set(reads); err != nil {
		return err
	}
	d.readsOwn = reads
	return d.updateLocal()
}

// updateLocal attaches or detaches the program on the local-in hook, if it is attached at all. The caller holds attachMu.
func (d *Dataplane) updateLocal() error {
	if d.links == nil {
		return nil
	}
	others, err := generations(d.opts.BPFFS)
	if err != nil {
		return err
	}
	if d.isSuperseded(others) {
		return ErrSuperseded
	}
	if err := d.followLocal(); err != nil {
		return err
	}
	return d.pin()
}
