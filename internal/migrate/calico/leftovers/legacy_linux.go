package leftovers

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
)

// legacy finds what iptables-legacy keeps for Calico. The kernel has no better door to it than its own programs.
func (n *Node) legacy() ([]Leftover, error) {
	var out []Leftover
	var errs []error
	for _, family := range []struct{ proc, save, restore string }{
		{"/proc/net/ip_tables_names", "iptables-legacy-save", "iptables-legacy-restore"},
		{"/proc/net/ip6_tables_names", "ip6tables-legacy-save", "ip6tables-legacy-restore"},
	} {
		names, err := os.ReadFile(strings.Replace(family.proc, "/proc/", "/proc/thread-self/", 1))
		if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(names)) == 0 {
			continue // no such tables: asking the programs would make them
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		text, err := exec.Command(family.save).Output()
		if err != nil {
			errs = append(errs, fmt.Errorf("there are legacy tables of iptables (%s), which only %s can list: %w", strings.Join(strings.Fields(string(names)), ", "), family.save, err))
			continue
		}
		out = append(out, parseLegacy(string(text), family.save, func(script string) error {
			cmd := exec.Command(family.restore, "--noflush")
			cmd.Stdin = strings.NewReader(script)
			if output, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", family.restore, err, bytes.TrimSpace(output))
			}
			return nil
		})...)
	}
	return out, errors.Join(errs...)
}

// parseLegacy finds Calico's rules and chains in what iptables-save prints. All of a table goes in one transaction, with the first of them.
func parseLegacy(text, program string, restore func(string) error) []Leftover {
	var out []Leftover
	var table string
	var first int
	var flush, rules, remove strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "*"):
			table, first = line[1:], len(out)
			flush.Reset()
			rules.Reset()
			remove.Reset()
		case strings.HasPrefix(line, ":"):
			if chain := strings.Fields(line[1:])[0]; isOurs(chain) {
				out = append(out, Leftover{Kind: "chain", Name: chain, Detail: fmt.Sprintf("(%s, %s)", program, table)})
				fmt.Fprintf(&flush, ":%s - [0:0]\n", chain)
				fmt.Fprintf(&remove, "-X %s\n", chain)
			}
		case strings.HasPrefix(line, "-A "):
			chain, _, _ := strings.Cut(line[3:], " ")
			if why := whyOursLegacy(line); why != "" && !isOurs(chain) {
				out = append(out, Leftover{Kind: "rule", Name: why, Detail: fmt.Sprintf("in %s (%s, %s)", chain, program, table)})
				fmt.Fprintf(&rules, "-D %s\n", line[3:])
			}
		case line == "COMMIT" && len(out) > first:
			script := "*" + table + "\n" + flush.String() + rules.String() + remove.String() + "COMMIT\n"
			out[first].remove = func() error { return restore(script) }
		}
	}
	return out
}

func whyOursLegacy(rule string) string {
	if _, comment, ok := strings.Cut(rule, `--comment "`+commentPrefix); ok {
		comment, _, _ = strings.Cut(comment, `"`)
		return commentPrefix + comment
	}
	for _, flag := range []string{" -j ", " -g "} {
		_, target, _ := strings.Cut(rule, flag)
		if target, _, _ = strings.Cut(target, " "); isOurs(target) {
			return strings.TrimSpace(flag) + " " + target
		}
	}
	return ""
}
