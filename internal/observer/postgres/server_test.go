//go:build postgres

package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/postgres"
	"github.com/kidoban/kidoban/internal/observer/store"
)

// server is a PostgreSQL server of a test's own, on a Unix socket.
type server struct {
	dir, bin string
	as       *syscall.Credential // who runs it, if not the test's user: the server does not run as root
	process  *exec.Cmd
	ended    <-chan struct{}
	log      *bytes.Buffer
	number   atomic.Int64 // of the last database
}

// newServer starts a server in a temporary directory. The test's end ends it.
func newServer(t testing.TB) *server {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		t.Fatalf("no PostgreSQL server is installed (make test-postgres installs Debian's): %v", err)
	}
	dir, err := os.MkdirTemp("", "kidoban-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: dir, bin: filepath.Dir(found[len(found)-1]), log: &bytes.Buffer{}}
	t.Cleanup(func() {
		if s.process != nil {
			s.end(t, syscall.SIGINT)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.log)
		}
	})
	if os.Geteuid() == 0 {
		s.as = credential(t, "postgres")
		if err := os.Chown(dir, int(s.as.Uid), int(s.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := s.command("initdb", "--pgdata="+s.data(), "--auth=trust", "--username=kidoban", "--encoding=UTF8", "--locale=C", "--no-sync").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.start(t)
	return s
}

func credential(t testing.TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

func (s *server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(s.bin, name), args...)
	c.Dir = s.dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.as, Pdeathsig: syscall.SIGINT}
	return c
}

// start starts the server and waits until it answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	eventually(t, "the server answers", func() bool { return s.isUp(t) })
}

// isUp reports whether the server answers, and starts it if it does not run: after a kill, children of the former one may have to end first.
func (s *server) isUp(t testing.TB) bool {
	t.Helper()
	if s.process == nil {
		s.launch(t)
	}
	c, err := pgx.Connect(t.Context(), s.connection("postgres"))
	if err == nil {
		return c.Close(t.Context()) == nil
	}
	select {
	case <-s.ended:
		s.process = nil
	default:
	}
	return false
}

func (s *server) launch(t testing.TB) {
	t.Helper()
	s.process = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=64MB", "-c", "max_connections=50")
	s.process.Stderr = s.log
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	process, ended := s.process, make(chan struct{})
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	s.ended = ended
}

// end sends the server a signal and waits until it and its children have ended.
func (s *server) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	<-s.ended
	s.process = nil
}

func (s *server) connection(database string) string {
	return fmt.Sprintf("host=%s user=kidoban dbname=%s", s.dir, database)
}

// database makes an empty database, and returns how to connect to it.
func (s *server) database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprint("test", s.number.Add(1))
	c, err := pgx.Connect(t.Context(), s.connection("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.WithoutCancel(t.Context())) }()
	if _, err := c.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	return s.connection(name)
}

// database is a storetest.Place.
type database string

func (d database) Open(t *testing.T, limits store.Limits) store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), string(d), limits, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually polls until a condition is met.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !met(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
