package flows

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/observer"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

// record what the cluster's observer has since a time, with the objects of the cluster, into a file.
func record(ctx context.Context, env *command.Env, namespace string, since time.Time, file string) error {
	c, err := env.Client()
	if err != nil {
		return err
	}
	o, err := observer.Connect(ctx, env, c, namespace)
	if err != nil {
		return err
	}
	if o == nil {
		return fmt.Errorf("there is no observer in namespace %s: install the component observer, give --kidoban-namespace, or --flows with a file", namespace)
	}
	cluster, err := command.Load(ctx, c)
	if err != nil {
		return err
	}
	return writeRecording(ctx, o.Get, answerLimit, ObjectsOf(cluster), since, env.Now().Truncate(time.Second), file)
}

// maxCollected is how large a recording in memory may become.
const maxCollected = 64 << 20

// Collect what an observer has of a time, in memory.
func Collect(ctx context.Context, get Getter, objects *replay.Objects, since, until time.Time) (*replay.Recording, error) {
	return collect(ctx, get, answerLimit, maxCollected, objects, since, until)
}

func collect(ctx context.Context, get Getter, limit, most int, objects *replay.Objects, since, until time.Time) (*replay.Recording, error) {
	var head, flows bytes.Buffer
	w := replay.NewWriter(&flows)
	coverage, hidden, err := fetch(ctx, get, limit, since, until, func(f *observerapi.Flow) error {
		if flows.Len() > most {
			return fmt.Errorf("the flows since %s take more than %d MiB: ask for a shorter time, or use kubectl kidoban replay --record", Time(since), most>>20)
		}
		return w.Write(f)
	})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := replay.WriteHead(&head, coverage, hidden, objects); err != nil {
		return nil, err
	}
	return replay.Open(io.MultiReader(&head, &flows))
}

// writeRecording writes a file, which is there once it is complete. Its head comes last, and is written before the rest by a second file.
func writeRecording(ctx context.Context, get Getter, limit int, objects *replay.Objects, since, until time.Time, file string) (err error) {
	flows, err := os.CreateTemp(filepath.Dir(file), ".kidoban-flows-*")
	if err != nil {
		return err
	}
	defer func() { _, _ = flows.Close(), os.Remove(flows.Name()) }()
	w := replay.NewWriter(flows)
	coverage, hidden, err := fetch(ctx, get, limit, since, until, w.Write)
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	if _, err := flows.Seek(0, io.SeekStart); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(file), ".kidoban-recording-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(out.Name()) }() // it has another name by then, if all went well
	if err = replay.WriteHead(out, coverage, hidden, objects); err == nil {
		_, err = io.Copy(out, flows)
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}
