package dataplane

import (
	"os"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
)

// Check reports what this node lacks for a Dataplane, in the calling thread's network namespace, and changes
// nothing. The error joins all that is missing, each with the way out. Attach switches connection tracking
// on, and fails if that fails.
func Check(opts Options) error { return inspect.Check(opts.withDefaults().BPFFS, tryLoad) }

// tryLoad loads the program with the smallest maps, and lets go of it.
func tryLoad() error {
	spec, err := specOf(Options{EventRate: Unlimited, Records: true, Names: NameOptions{On: true}, Sizes: Sizes{
		Pods: 1, Addresses: 1, Networks: 1, Rows: 1, Ports: 1, Revoked: 1, Interfaces: 1, Repeats: 1, Records: 1, Hits: 1, EventBytes: uint32(os.Getpagesize()),
		Domains: 1, Resolvers: 1, Learned: 1, Names: 1,
	}})
	if err != nil {
		return err
	}
	trial, err := load(spec, nil)
	if err != nil {
		return err
	}
	return trial.Close()
}
