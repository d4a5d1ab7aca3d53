package cluster

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"syscall"
)

// A reaper is a small process that takes a cluster down on a signal, or when the process that started it is
// gone without a word: killed, or ended by a panic. It is in a session of its own, so that Ctrl-C does not reach it.
type reaper struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	once  sync.Once
	err   error
}

// An interrupted up cleans up after itself, and holds a lock meanwhile.
const reap = `
read -r word
[ "$word" = keep ] && exit 0
for _ in $(seq 30); do
	"$0" --name "$1" down 2>/dev/null && exit 0
	sleep 1
done
exec "$0" --name "$1" down`

func startReaper(c *Cluster) (*reaper, error) {
	cmd := exec.Command("sh", "-c", reap, c.Program, c.Name)
	cmd.Dir = c.Repo
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start what takes the cluster down: %w", err)
	}
	return &reaper{cmd: cmd, stdin: stdin}, nil
}

// finish tells the reaper what to do, "keep" or "down", and waits until it is done. Only the first call counts.
func (r *reaper) finish(word string) error {
	if r == nil {
		return nil
	}
	r.once.Do(func() {
		_, err := io.WriteString(r.stdin, word+"\n")
		r.err = errors.Join(err, r.stdin.Close(), r.cmd.Wait())
	})
	return r.err
}
