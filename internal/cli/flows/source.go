// Package flows is what the commands that read recorded flows share: where they read them from, and how they print times and losses.
package flows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/replay"
)

// Source is the flags for where flows come from.
type Source struct {
	File  string
	since string
	// record is the file that is written, if it is to be kept.
	record    string
	namespace string
}

// defaultSince is how far back flows of the live cluster go by default.
const defaultSince = 24 * time.Hour

// AddSource adds the flags --flows, --since and --kidoban-namespace.
func AddSource(cmd *cobra.Command) *Source {
	s := &Source{}
	cmd.Flags().StringVar(&s.File, "flows", "", "Read the flows from this file, which replay --record wrote, or from - (stdin). Default: those of the cluster's observer.")
	cmd.Flags().StringVar(&s.since, "since", "", "Leave out flows that ended before this time (RFC 3339), or longer than this before now or the end of the recording, such as 12h or 7d. Default: all of a file, or 24h.")
	cmd.Flags().StringVar(&s.namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	return s
}

// AddRecord adds the flag --record.
func (s *Source) AddRecord(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.record, "record", "", "Write the flows of the observer and the objects of the cluster to this file, which --flows reads.")
}

// Recording reports whether a file is to be written.
func (s *Source) Recording() bool { return s.record != "" }

// Open the recording, which the caller closes.
func (s *Source) Open(ctx context.Context, env *command.Env) (*replay.Recording, io.Closer, error) {
	switch {
	case s.record != "" && s.File != "":
		return nil, nil, errors.New("--record writes what the observer has, and --flows reads a file: give one of them")
	case s.File == "":
		return s.openLive(ctx, env)
	case s.File == "-":
		r, err := replay.Open(env.In)
		if err != nil {
			return nil, nil, fmt.Errorf("--flows -: %w", err)
		}
		return r, io.NopCloser(env.In), nil
	}
	return open(s.File)
}

func open(name string) (*replay.Recording, io.Closer, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, nil, err
	}
	r, err := replay.Open(file)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, file, nil
}

// openLive records what the observer has, and opens that.
func (s *Source) openLive(ctx context.Context, env *command.Env) (*replay.Recording, io.Closer, error) {
	since, err := s.sinceOf(env.Now())
	if err != nil {
		return nil, nil, err
	}
	if since.IsZero() {
		since = env.Now().Add(-defaultSince).Truncate(time.Second)
	}
	name := s.record
	if name == "" {
		dir, err := os.MkdirTemp("", "kidoban-")
		if err != nil {
			return nil, nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }() // an open file stays readable
		name = filepath.Join(dir, "flows.jsonl")
	}
	if err := record(ctx, env, s.namespace, since, name); err != nil {
		return nil, nil, err
	}
	return open(name)
}

// Since is the time from which on flows count, zero for all. A duration is one before the end of the recording.
func (s *Source) Since(r *replay.Recording) (time.Time, error) {
	if s.since != "" && r.Coverage.Until.IsZero() {
		if _, err := time.Parse(time.RFC3339, s.since); err != nil {
			return time.Time{}, fmt.Errorf("--since %s: the recording does not say when it ends: give a time", s.since)
		}
	}
	return s.sinceOf(r.Coverage.Until)
}

func (s *Source) sinceOf(end time.Time) (time.Time, error) {
	if s.since == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s.since); err == nil {
		return t, nil
	}
	d, err := parseDuration(s.since)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since %s: give a time such as 2026-11-20T10:00:00Z, or a duration such as 12h or 7d", s.since)
	}
	return end.Add(-d), nil
}

// parseDuration reads a duration that is not negative, also in days.
func parseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(text)
	if err == nil && d < 0 {
		err = errors.New("negative")
	}
	return d, err
}
