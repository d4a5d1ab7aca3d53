// Package flows is what the commands that read recorded flows share: where they read them from, and how they print times and losses.
package flows

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/replay"
)

// Source is the flags for where flows come from.
type Source struct {
	File  string
	since string
}

// AddSource adds the flags --flows and --since.
func AddSource(cmd *cobra.Command) *Source {
	s := &Source{}
	cmd.Flags().StringVar(&s.File, "flows", "", "Read the flows from this file, which replay --record wrote, or from - (stdin).")
	cmd.Flags().StringVar(&s.since, "since", "", "Leave out flows that ended before this time (RFC 3339), or longer than this before the end of the recording, such as 12h or 7d. Default: all.")
	return s
}

// Open the recording, which the caller closes.
func (s *Source) Open(_ context.Context, env *command.Env) (*replay.Recording, io.Closer, error) {
	switch s.File {
	case "":
		return nil, nil, errors.New("no flows to read: give --flows with a file that was recorded")
	case "-":
		r, err := replay.Open(env.In)
		if err != nil {
			return nil, nil, fmt.Errorf("--flows -: %w", err)
		}
		return r, io.NopCloser(env.In), nil
	}
	file, err := os.Open(s.File)
	if err != nil {
		return nil, nil, err
	}
	r, err := replay.Open(file)
	if err != nil {
		_ = file.Close()
		return nil, nil, fmt.Errorf("%s: %w", s.File, err)
	}
	return r, file, nil
}

// Since is the time from which on flows count, zero for all. A duration is one before the end of the recording.
func (s *Source) Since(r *replay.Recording) (time.Time, error) {
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
	if r.Coverage.Until.IsZero() {
		return time.Time{}, fmt.Errorf("--since %s: the recording does not say when it ends: give a time", s.since)
	}
	return r.Coverage.Until.Add(-d), nil
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
