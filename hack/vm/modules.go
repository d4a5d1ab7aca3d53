package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"
	"github.com/ulikunitz/xz"

	"github.com/kidoban/kidoban/hack/vm/module"
)

// packed are the parts of a kernel's modules that a node of Kubernetes may use. What they need comes along.
var packed = []string{
	"net/8021q/", "net/802/", "net/bridge/", "net/core/", "net/ipv4/", "net/ipv6/", "net/llc/", "net/netfilter/", "net/sched/", "net/sctp/",
	"drivers/net/dummy.ko", "drivers/net/geneve.ko", "drivers/net/ipvlan/", "drivers/net/macvlan.ko", "drivers/net/tun.ko", "drivers/net/veth.ko", "drivers/net/vxlan/",
	"crypto/crc32c", "lib/libcrc32c.ko", "lib/crypto/", // what modules ask for by name when they are used
}

// addModules packs modules, uncompressed, and the table by which modprobe finds them.
func (a *archive) addModules(k kernel) error {
	files, err := moduleFiles(filepath.Join(k.modules, "kernel"))
	if err != nil {
		return err
	}
	var wanted []string
	for name, file := range files {
		if slices.ContainsFunc(packed, func(p string) bool { return strings.HasPrefix(file, p) }) {
			wanted = append(wanted, name)
		}
	}
	slices.Sort(wanted)
	table := map[string]module.Module{}
	for len(wanted) > 0 {
		name := wanted[0]
		wanted = wanted[1:]
		file, ok := files[name]
		if _, done := table[name]; done || !ok { // built in, or of another kernel's making
			continue
		}
		content, err := readModule(filepath.Join(k.modules, "kernel", file))
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		m, err := moduleInfo(name, content)
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		table[name] = m
		wanted = append(wanted, m.Needs...)
		a.add(strings.TrimPrefix(m.File(), "/"), cpio.TypeReg|0o644, content)
	}
	list, err := json.Marshal(slices.SortedFunc(maps.Values(table), func(x, y module.Module) int { return strings.Compare(x.Name, y.Name) }))
	if err == nil {
		a.add(strings.TrimPrefix(module.Table, "/"), cpio.TypeReg|0o644, list)
	}
	return err
}

// moduleFiles finds modules by their names.
func moduleFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		relative, err := filepath.Rel(dir, file)
		name, _, ok := strings.Cut(path.Base(relative), ".ko")
		if ok {
			files[module.Normal(name)] = filepath.ToSlash(relative)
		}
		return err
	})
	return files, err
}

func readModule(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil || filepath.Ext(file) == ".ko" {
		return content, err
	}
	if filepath.Ext(file) != ".xz" {
		return nil, fmt.Errorf("compressed in a way that is unknown here")
	}
	r, err := xz.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// moduleInfo reads what a module says of itself, as modinfo(8) does.
func moduleInfo(name string, content []byte) (module.Module, error) {
	m := module.Module{Name: name}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return m, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return m, fmt.Errorf("has no .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return m, err
	}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for need := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' }) {
				m.Needs = append(m.Needs, module.Normal(need))
			}
		case "softdep":
			m.Needs = append(m.Needs, softNeeds(value)...)
		case "alias":
			m.Aliases = append(m.Aliases, value)
		}
	}
	return m, nil
}

// softNeeds reads the first part of "pre: a b post: c".
func softNeeds(value string) []string {
	var needs []string
	pre := false
	for word := range strings.FieldsSeq(value) {
		switch {
		case strings.HasSuffix(word, ":"):
			pre = word == "pre:"
		case pre:
			needs = append(needs, module.Normal(word))
		}
	}
	return needs
}
