package dataplane_test

import (
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// The verifier's limits of 512 bytes of stack and 1,000,000 instructions, and what the programs may take of them: another kernel, or another
// compiler, may need some more.
const (
	stackLimit   = 512
	maxStack     = 432
	maxProcessed = 300_000
)

// withEverything are the options that make the programs largest: the verifier does not look at what is switched off.
func withEverything() dataplane.Options {
	opts := withNames
	opts.Events, opts.CountHits, opts.Records, opts.Guard = dataplane.EventsAll, true, true, dataplane.GuardOn
	return opts
}

// The verifier accepts each program with room for other kernels and compilers. docs/dataplane.md has the figures.
func TestTheVerifiersFigures(t *testing.T) {
	for name, opts := range map[string]dataplane.Options{"without names": {}, "with names": withNames, "with everything": withEverything()} {
		t.Run(name, func(t *testing.T) {
			processed := figures(t, opts)
			for program, n := range processed {
				t.Logf("%s: %d instructions", program, n)
				if n > maxProcessed {
					t.Errorf("%s takes more than %d instructions", program, maxProcessed)
				}
			}
			if !loads(t, opts, stackLimit-maxStack) {
				t.Errorf("the deepest calls take more than %d bytes of stack", maxStack)
			}
		})
	}
}

// figures are the instructions that the verifier looks at, by program.
func figures(t *testing.T, opts dataplane.Options) map[string]int {
	t.Helper()
	spec, err := dataplane.SpecOf(opts)
	check(t, err)
	programs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	check(t, err)
	defer programs.Close()
	out := map[string]int{}
	for name, p := range programs.Programs {
		found := regexp.MustCompile(`processed (\d+) insns`).FindStringSubmatch(p.VerifierLog)
		if found == nil {
			t.Fatalf("no figures in the verifier's log:\n%s", p.VerifierLog)
		}
		out[name], err = strconv.Atoi(found[1])
		check(t, err)
	}
	return out
}

// loads reports whether the programs load if each uses so many bytes of stack more. A frame takes a multiple of 16 bytes, and that of the programs
// themselves is empty.
func loads(t *testing.T, opts dataplane.Options, use int16) bool {
	t.Helper()
	spec, err := dataplane.SpecOf(opts)
	check(t, err)
	for _, p := range spec.Programs {
		first := p.Instructions[0] // bears the program's name
		begin := asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithMetadata(first.Metadata), asm.StoreMem(asm.RFP, -use-16, asm.R0, asm.DWord)}
		p.Instructions = append(append(begin, first.WithMetadata(asm.Metadata{})), p.Instructions[1:]...)
	}
	programs, err := ebpf.NewCollection(spec)
	if err == nil {
		programs.Close()
	}
	return err == nil
}
