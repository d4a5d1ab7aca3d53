package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"slices"
	"time"
)

// rollUp copies what stays of a partition. Numbers stay the same.
var rollUp = []string{
	"INSERT INTO facts SELECT * FROM old.facts",
	"INSERT INTO batches SELECT * FROM old.batches",
	"INSERT INTO nodes SELECT * FROM old.nodes",
	`INSERT INTO losses SELECT node, reason, span - span % 3600 AS hour, min(first), max(last), sum(packets), sum(records)
		FROM old.losses GROUP BY node, reason, hour`,
	"INSERT INTO hours SELECT * FROM old.hours",
	"INSERT INTO ends SELECT * FROM old.ends WHERE id = summary",
	"INSERT INTO workloads SELECT * FROM old.workloads",
	"INSERT INTO decisions SELECT * FROM old.decisions",
	"INSERT INTO words SELECT * FROM old.words",
}

// Retain implements store.Store.
func (s *Store) Retain(ctx context.Context, now time.Time) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if w := s.current; w != nil && now.Unix()-w.start >= int64(partitionTime.Seconds()) {
		if err := s.finish(ctx); err != nil {
			return err
		}
	}
	if err := s.age(ctx, now); err != nil {
		return err
	}
	return s.shrink(ctx)
}

// age rolls up and deletes what is too old.
func (s *Store) age(ctx context.Context, now time.Time) error {
	views := s.all()
	defer s.release(views)
	for _, v := range views {
		p := v.partition
		if s.isCurrent(p) {
			continue
		}
		p.mu.Lock()
		p.known = dictionary{} // readers read it again
		p.mu.Unlock()
		switch {
		case now.Unix()-max(p.last, p.start) > int64(s.limits.Age.Seconds()):
			if err := s.remove(p); err != nil {
				return err
			}
		case !p.rolled && now.Unix()-max(p.last, p.start) > int64(s.limits.ExactAge.Seconds()):
			if err := s.rollUp(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// shrink rolls up the oldest partitions, and then deletes the oldest, while there are too many bytes.
func (s *Store) shrink(ctx context.Context) error {
	for {
		total, oldest, exact := s.measure()
		// One partition may be written before the next call.
		if total <= s.limits.Bytes-s.limits.Bytes/parts || oldest == nil {
			return nil
		}
		if exact != nil {
			err := s.rollUp(ctx, exact)
			if err == nil {
				continue
			}
			if ctx.Err() != nil {
				return err
			}
			// The disk may be full: then there is no room for the copy.
			s.log.Error(err, "Cannot roll up a file of the store; deleting the oldest", "file", exact.path)
		}
		if err := s.remove(oldest); err != nil {
			return err
		}
	}
}

// measure returns the bytes of all partitions, and the oldest and the oldest with exact ends of those that are not written.
func (s *Store) measure() (total int64, oldest, exact *partition) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.partitions {
		total += p.size()
		if s.isCurrent(p) {
			continue
		}
		if oldest == nil {
			oldest = p
		}
		if exact == nil && !p.rolled {
			exact = p
		}
	}
	return total, oldest, exact
}

func (s *Store) isCurrent(p *partition) bool { return s.current != nil && s.current.partition == p }

// remove takes a partition away. Its files are deleted once nothing reads them. Its batches stay known until the process ends: they are
// few bytes.
func (s *Store) remove(p *partition) error { return s.change(p, nil) }

// change puts a partition, or nothing if it is nil, in the place of another.
func (s *Store) change(p, by *partition) error {
	s.mu.Lock()
	i := slices.Index(s.partitions, p)
	if by == nil {
		s.partitions = slices.Delete(s.partitions, i, i+1)
	} else {
		s.partitions[i] = by
	}
	p.removed = true
	unused := p.users == 0
	s.mu.Unlock()
	if unused {
		return p.delete()
	}
	return nil
}

// rollUp puts a partition without exact ends in the place of one with them.
func (s *Store) rollUp(ctx context.Context, p *partition) error {
	if !p.closed { // the process ended while it was written
		w, err := openPartition(p)
		if err != nil {
			return err
		}
		if err := errors.Join(w.closeTables(ctx), w.close()); err != nil {
			return err
		}
		s.mu.Lock()
		p.closed = true
		s.mu.Unlock()
	}
	file := path(s.dir, prefixHours, p.start)
	temporary := file + unfinished
	db, err := sql.Open("sqlite", "file:"+temporary+"?_pragma=journal_mode(DELETE)&_pragma=synchronous(FULL)&_pragma=temp_store(MEMORY)")
	if err != nil {
		return err
	}
	err = errors.Join(copyHours(ctx, db, p.path), db.Close())
	if err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	rolled, err := openReader(file)
	if err != nil {
		return err
	}
	return s.change(p, rolled)
}

func copyHours(ctx context.Context, db *sql.DB, from string) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.ExecContext(ctx, "ATTACH ? AS old", from); err != nil {
		return err
	}
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, schema); err != nil {
		return err
	}
	for _, statement := range rollUp {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}
