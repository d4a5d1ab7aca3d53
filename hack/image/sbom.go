package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM writes a bill of materials of the image, as CycloneDX in JSON: its Go binaries, with the modules that their build
// information names. It has neither a time nor a serial number: the same files give the same bytes.
func (s imageSpec) writeSBOM(output string) error {
	b, err := s.sbom()
	if err != nil {
		return err
	}
	return os.WriteFile(output, b, 0o644)
}

func (s imageSpec) sbom() ([]byte, error) {
	version := s.labels[versionLabel]
	name, _, _ := strings.Cut(s.tag, ":")
	bom := cdx.NewBOM()
	image := cdx.Component{BOMRef: "image", Type: cdx.ComponentTypeContainer, Name: name, Version: version}
	bom.Metadata = &cdx.Metadata{Component: &image}
	all := components{refs: map[string]bool{}}
	for _, f := range s.files {
		info, err := buildinfo.Read(bytes.NewReader(f.content))
		if err != nil {
			return nil, fmt.Errorf("%s has no Go build information: %w", f.path, err)
		}
		all.addBinary(f, info, version)
	}
	all.dependencies = append(all.dependencies, cdx.Dependency{Ref: image.BOMRef, Dependencies: &all.binaries})
	bom.Components, bom.Dependencies = &all.list, &all.dependencies
	var b bytes.Buffer
	encoder := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true)
	if err := encoder.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// components of a bill of materials, each once.
type components struct {
	list         []cdx.Component
	dependencies []cdx.Dependency
	binaries     []string
	refs         map[string]bool
}

func (c *components) addBinary(f file, info *debug.BuildInfo, version string) {
	sum := sha256.Sum256(f.content)
	binary := cdx.Component{
		BOMRef: "file:" + f.path, Type: cdx.ComponentTypeApplication, Name: info.Path, Version: version,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	}
	modules := []string{c.addModule("std", strings.TrimPrefix(info.GoVersion, "go"), "")}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, c.addModule(m.Path, m.Version, m.Sum))
	}
	c.list = append(c.list, binary)
	c.binaries = append(c.binaries, binary.BOMRef)
	c.dependencies = append(c.dependencies, cdx.Dependency{Ref: binary.BOMRef, Dependencies: &modules})
}

// addModule returns the reference to a module. Sum is go.sum's, of the module's files.
func (c *components) addModule(path, version, sum string) string {
	url := "pkg:golang/" + path + "@" + version
	if c.refs[url] {
		return url
	}
	c.refs[url] = true
	module := cdx.Component{BOMRef: url, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: url}
	if sum != "" {
		module.Properties = &[]cdx.Property{{Name: "go:sum", Value: sum}}
	}
	c.list = append(c.list, module)
	return url
}
