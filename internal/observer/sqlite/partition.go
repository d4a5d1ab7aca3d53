package sqlite

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// Names of files: a prefix, the second of the first push in them, and an ending.
const (
	prefixFlows = "flows-" // a partition with all its tables
	prefixHours = "hours-" // a partition that was rolled up
	ending      = ".db"
	unfinished  = ".unfinished"
)

// schema of a partition. times are Unix seconds of spans; first and last are milliseconds after that. What packed contains is in
// packed.go. k is the span and a number: see key.
const schema = `
CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE batches (node TEXT NOT NULL, generation TEXT NOT NULL, sequences TEXT NOT NULL, PRIMARY KEY (node, generation)) WITHOUT ROWID;
CREATE TABLE nodes (name TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE losses (node TEXT NOT NULL, reason TEXT NOT NULL, span INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
	packets INTEGER NOT NULL, records INTEGER NOT NULL, PRIMARY KEY (node, reason, span)) WITHOUT ROWID;
CREATE TABLE workloads (id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL);
CREATE TABLE ends (id INTEGER PRIMARY KEY, workload INTEGER NOT NULL, summary INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE decisions (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE words (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE minutes (span INTEGER NOT NULL, source INTEGER NOT NULL, destination INTEGER NOT NULL, packed INTEGER NOT NULL,
	decision INTEGER NOT NULL, service INTEGER NOT NULL, connections INTEGER NOT NULL, bytes INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL,
	PRIMARY KEY (span, source, destination, packed, decision, service)) WITHOUT ROWID;
CREATE TABLE hours (span INTEGER NOT NULL, source INTEGER NOT NULL, destination INTEGER NOT NULL, packed INTEGER NOT NULL,
	decision INTEGER NOT NULL, service INTEGER NOT NULL, connections INTEGER NOT NULL, bytes INTEGER NOT NULL,
	first INTEGER NOT NULL, last INTEGER NOT NULL,
	PRIMARY KEY (span, source, destination, packed, decision, service)) WITHOUT ROWID;
`

// schemaExact is that of the table that rolled-up partitions do not have.
const schemaExact = `
CREATE TABLE exact (k INTEGER PRIMARY KEY, source INTEGER NOT NULL, destination INTEGER NOT NULL, sourceWorkload INTEGER NOT NULL,
	destinationWorkload INTEGER NOT NULL, packed INTEGER NOT NULL, decision INTEGER NOT NULL, service INTEGER NOT NULL,
	connections INTEGER NOT NULL, bytes INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE INDEX exact_source ON exact (sourceWorkload);
CREATE INDEX exact_destination ON exact (destinationWorkload);
`

// Names of facts.
const (
	factFirst   = "first"   // span of the oldest report
	factLast    = "last"    // and of the newest
	factReports = "reports" // rows of exact
	factClosed  = "closed"  // 1: the table hours is complete, and nothing is written any more
)

// partition is a file.
type partition struct {
	path   string
	start  int64 // of its first push
	rolled bool
	db     *sql.DB // for readers

	closed bool
	content
	users   int  // that read or write it
	removed bool // once there are no users

	mu    sync.Mutex // guards known
	known dictionary
}

// content says what the tables of a partition contain.
type content struct {
	reports int64 // rows of exact
	// first and last spans of reports in Unix seconds; first is 0 if there are none.
	first, last int64
}

// empty reports whether there are no reports.
func (c *content) empty() bool { return c.first == 0 }

// overlaps reports whether a report can be within a span of time in Unix seconds.
func (c *content) overlaps(since, until int64) bool {
	return !c.empty() && c.first < until && c.last+int64(store.Hour.Seconds()) > since
}

// size is that of the partition's files.
func (p *partition) size() (n int64) {
	for _, name := range []string{p.path, p.path + "-wal", p.path + "-shm"} {
		if info, err := os.Stat(name); err == nil {
			n += info.Size()
		}
	}
	return n
}

// delete closes the partition and deletes its files.
func (p *partition) delete() error {
	err := p.db.Close()
	for _, name := range []string{p.path, p.path + "-wal", p.path + "-shm"} {
		if e := os.Remove(name); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// path of a partition.
func path(dir, prefix string, start int64) string {
	return filepath.Join(dir, prefix+strconv.FormatInt(start, 10)+ending)
}

// parse returns what a file's name says.
func parse(name string) (prefix string, start int64, ok bool) {
	for _, prefix := range []string{prefixFlows, prefixHours} {
		if rest, found := strings.CutPrefix(name, prefix); found {
			if number, found := strings.CutSuffix(rest, ending); found {
				start, err := strconv.ParseInt(number, 10, 64)
				return prefix, start, err == nil
			}
		}
	}
	return "", 0, false
}

// openReader opens a partition that exists.
func openReader(path string) (*partition, error) {
	prefix, start, ok := parse(filepath.Base(path))
	if !ok {
		return nil, fmt.Errorf("%s is not a file of the store", path)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=rw&_pragma=busy_timeout(10000)&_pragma=cache_size(-8192)&_pragma=temp_store(MEMORY)&_pragma=query_only(1)")
	if err != nil {
		return nil, err
	}
	// No limit: a reader holds several connections, and one that waited for another reader would wait for ever.
	db.SetConnMaxIdleTime(time.Minute)
	p := &partition{path: path, start: start, rolled: prefix == prefixHours, db: db}
	if err := p.readFacts(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), db.Close())
	}
	return p, nil
}

func (p *partition) readFacts() error {
	rows, err := p.db.Query("SELECT name, value FROM facts")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var name string
		var value int64
		if err := rows.Scan(&name, &value); err != nil {
			return err
		}
		switch name {
		case factFirst:
			p.first = value
		case factLast:
			p.last = value
		case factReports:
			p.reports = value
		case factClosed:
			p.closed = value == 1
		}
	}
	return rows.Err()
}
