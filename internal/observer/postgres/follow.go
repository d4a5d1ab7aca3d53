package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kidoban/kidoban/internal/observer/store"
)

// followInterval is the time between two looks at what was appended.
const followInterval = time.Second

// Follow calls receive with what any replica stores from now on, each report once, until the context is done. The batches have no node and
// no losses.
func (s *Store) Follow(ctx context.Context, receive func([]store.Batch)) {
	f := follower{Store: s, receive: receive}
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	failing := false
	for {
		err := f.look(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.log.Error(err, "Cannot read what other replicas store; retrying")
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

type follower struct {
	*Store
	receive func([]store.Batch)
	// watermark: what transactions below it have stored was received, or is from before. 0: not known yet.
	watermark uint64
	looks     uint64
}

// look passes on what was stored since it was called last.
func (f *follower) look(ctx context.Context) error {
	var batch store.Batch
	var until uint64
	err := f.read(ctx, nil, func(tx pgx.Tx, parts []part, _ func(*store.Report) bool) error {
		batch.Reports = nil
		var xmin int64
		if err := tx.QueryRow(ctx, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").Scan(&xmin); err != nil {
			return err
		}
		until = uint64(xmin)
		r := reader{Store: f.Store, tx: tx}
		for i := range parts {
			p := &parts[i]
			// A part that is summed up has nothing newer than its watermark.
			if f.watermark == 0 || p.state == stateRolled || p.state == stateReady && p.watermark <= f.watermark {
				continue
			}
			query := fmt.Sprintf("SELECT %s FROM %s WHERE tx >= '%d' AND tx < '%d'", columns, table(tableExact, p.id), f.watermark, until)
			if err := r.all(ctx, p, rowsOf(1, query), func(r *store.Report) bool {
				batch.Reports = append(batch.Reports, *r)
				return true
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.watermark = until
	if len(batch.Reports) > 0 {
		f.looks++
		batch.Generation, batch.Sequence, batch.Received = "follow", f.looks, time.Now()
		f.receive([]store.Batch{batch})
	}
	return nil
}
