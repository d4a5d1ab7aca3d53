package sqlite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	_ "modernc.org/sqlite" // the driver

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// partitionTime is how long a partition is written.
	partitionTime = time.Hour
	// parts is how many partitions with exact ends fit into the limit of bytes: one of them is deleted or rolled up at a time.
	parts = 16
	// maxReports in a partition: their numbers in keys must differ.
	maxReports = 1 << numberBits
)

// Store is a store.Store.
type Store struct {
	dir    string
	limits store.Limits
	log    logr.Logger
	shared interner

	// writing is held by the one that writes: it guards current and batches.
	writing sync.Mutex
	current *writer
	batches map[generation]store.Sequences

	// mu guards partitions, and of each the fields from closed on. It is never held while files are read or written.
	mu         sync.RWMutex
	partitions []*partition // by start
	// broken is the start of the newest file that could not be read when the store was opened.
	broken int64
}

var _ store.Store = (*Store)(nil)

// Open opens the store in a directory, which it makes if there is none.
func Open(dir string, limits store.Limits, log logr.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	s := &Store{dir: dir, limits: limits, log: log, batches: map[generation]store.Sequences{}}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store in %s: %w", dir, err), s.Close())
	}
	return s, nil
}

func (s *Store) open() error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	rolled := map[int64]bool{}
	for _, f := range files {
		if prefix, start, ok := parse(f.Name()); ok && prefix == prefixHours {
			rolled[start] = true
		}
	}
	for _, f := range files {
		file := filepath.Join(s.dir, f.Name())
		prefix, start, ok := parse(f.Name())
		if !ok {
			if strings.Contains(f.Name(), unfinished) { // when the process ended
				err = errors.Join(err, os.Remove(file))
			}
			continue
		}
		p, e := openReader(file)
		if e != nil {
			// One broken file must not end the recording of new flows.
			s.log.Error(e, "Cannot read a file of the store; its flows are left out", "file", file)
			s.broken = max(s.broken, start)
			continue
		}
		if prefix == prefixFlows && rolled[start] { // the process ended before it was deleted
			err = errors.Join(err, p.delete())
			continue
		}
		if e := readBatches(p.db, s.batches); e != nil {
			s.log.Error(e, "Cannot read a file of the store; its flows are left out", "file", file)
			s.broken = max(s.broken, start)
			err = errors.Join(err, p.db.Close())
			continue
		}
		s.partitions = append(s.partitions, p)
	}
	slices.SortFunc(s.partitions, func(a, b *partition) int { return cmp.Compare(a.start, b.start) })
	return err
}

// Close ends the store. No other method may be called afterwards.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var err error
	if s.current != nil {
		err = s.current.close()
		s.current = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.partitions {
		err = errors.Join(err, p.db.Close())
	}
	s.partitions = nil
	return err
}

// Put implements store.Store.
func (s *Store) Put(ctx context.Context, batches []store.Batch) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	added := map[generation]store.Sequences{}
	var fresh []store.Batch
	for i := range batches {
		g := generation{batches[i].Node, batches[i].Generation}
		stored, now := s.batches[g], added[g]
		if stored.Has(batches[i].Sequence) || now.Has(batches[i].Sequence) {
			continue
		}
		now.Add(batches[i].Sequence)
		added[g] = now
		fresh = append(fresh, batches[i])
	}
	if len(fresh) == 0 {
		return nil
	}
	w, err := s.writable(ctx, fresh[0].Received, fresh)
	if err != nil {
		return err
	}
	if err := s.write(ctx, w, fresh); err != nil {
		// Its dictionary has numbers that were rolled back.
		s.current = nil
		return errors.Join(err, w.close())
	}
	for g, now := range added {
		stored := s.batches[g]
		stored.Union(now)
		s.batches[g] = stored
	}
	return nil
}

func (s *Store) write(ctx context.Context, w *writer, batches []store.Batch) error {
	content, err := w.write(ctx, batches, s.limits.Addresses)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.content = content
	return nil
}

// writable returns the partition that is written at a time.
func (s *Store) writable(ctx context.Context, now time.Time, batches []store.Batch) (*writer, error) {
	var adding int64
	for i := range batches {
		adding += int64(len(batches[i].Reports))
	}
	if s.current == nil {
		if n := len(s.partitions); n > 0 && !s.partitions[n-1].closed && !s.partitions[n-1].rolled {
			w, err := openPartition(s.partitions[n-1])
			if err != nil {
				return nil, err
			}
			s.current = w
		}
	}
	if w := s.current; w != nil {
		if now.Unix()-w.start < int64(partitionTime.Seconds()) && w.reports+adding <= maxReports && w.size() < s.limits.Bytes/parts {
			return w, nil
		}
		if err := s.finish(ctx); err != nil {
			return nil, err
		}
	}
	start := now.Unix()
	if n := len(s.partitions); n > 0 {
		start = max(start, s.partitions[n-1].start+1)
	}
	w, err := createPartition(s.dir, start)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partitions = append(s.partitions, w.partition)
	s.current = w
	return w, nil
}

// finish ends the writing of the current partition.
func (s *Store) finish(ctx context.Context) error {
	w := s.current
	s.current = nil
	if err := w.closeTables(ctx); err != nil {
		return errors.Join(err, w.close())
	}
	s.mu.Lock()
	w.closed = true
	s.mu.Unlock()
	return w.close()
}

// view is a partition as it was at a time.
type view struct {
	*partition
	content
	closed bool
}

// overlapping returns the partitions with reports in a span of time, by start. They stay readable until they are released.
func (s *Store) overlapping(since, until time.Time) []view {
	return s.use(func(c *content) bool { return c.overlaps(since.Unix(), until.Unix()) })
}

// all returns all partitions, by start. They stay readable until they are released.
func (s *Store) all() []view { return s.use(func(*content) bool { return true }) }

func (s *Store) use(wanted func(*content) bool) (views []view) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.partitions {
		if wanted(&p.content) {
			p.users++
			views = append(views, view{p, p.content, p.closed})
		}
	}
	return views
}

func (s *Store) release(views []view) {
	var removed []*partition
	s.mu.Lock()
	for _, v := range views {
		if v.users--; v.users == 0 && v.removed {
			removed = append(removed, v.partition)
		}
	}
	s.mu.Unlock()
	for _, p := range removed {
		if err := p.delete(); err != nil {
			s.log.Error(err, "Cannot delete a file of the store", "file", p.path)
		}
	}
}

// Nodes implements store.Store.
func (s *Store) Nodes(ctx context.Context) ([]store.Node, error) {
	nodes := map[string]store.Node{}
	views := s.all()
	defer s.release(views)
	for _, p := range views {
		rows, err := p.db.QueryContext(ctx, "SELECT name, first, last FROM nodes")
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var name string
			var first, last int64
			if err = rows.Scan(&name, &first, &last); err != nil {
				break
			}
			n, ok := nodes[name]
			if f := time.UnixMilli(first); !ok || f.Before(n.First) {
				n.First = f
			}
			if l := time.UnixMilli(last); l.After(n.Last) {
				n.Last = l
			}
			n.Name = name
			nodes[name] = n
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	out := make([]store.Node, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b store.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Losses implements store.Store.
func (s *Store) Losses(ctx context.Context, since, until time.Time) ([]observerapi.Loss, error) {
	var losses []observerapi.Loss
	views := s.all()
	defer s.release(views)
	for _, p := range views {
		rows, err := p.db.QueryContext(ctx, "SELECT node, reason, first, last, packets, records FROM losses WHERE first < ? AND last >= ?",
			until.UnixMilli(), since.UnixMilli())
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			var l observerapi.Loss
			var first, last int64
			if err = rows.Scan(&l.Node, &l.Reason, &first, &last, &l.Packets, &l.Records); err != nil {
				break
			}
			l.First, l.Last = time.UnixMilli(first), time.UnixMilli(last)
			losses = append(losses, l)
		}
		if err := errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return nil, err
		}
	}
	return store.MergeLosses(losses), nil
}

// Status implements store.Store.
func (s *Store) Status(context.Context) (store.Status, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out store.Status
	earliest := func(t *time.Time, p *partition) {
		if first := time.Unix(p.first, 0); !p.empty() && (t.IsZero() || first.Before(*t)) {
			*t = first
		}
	}
	for _, p := range s.partitions {
		out.Bytes += p.size()
		if out.Began.IsZero() && p.start > s.broken {
			out.Began = time.Unix(p.start, 0)
		}
		earliest(&out.Since, p)
		if !p.rolled {
			out.Reports += p.reports
			earliest(&out.ExactSince, p)
		}
	}
	return out, nil
}
