package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// This test's own executable is a Go binary with modules.
func TestSBOMNamesTheModules(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	sbom := filepath.Join(dir, "agent.cdx.json")
	cmd := newCommand()
	cmd.SetArgs([]string{
		"--output=" + filepath.Join(dir, "agent.tar"), "--sbom=" + sbom, "--tag=kidoban.dev/agent:dev", "--entrypoint=/agent",
		"--label=" + versionLabel + "=v1.2.3", self + ":/agent",
	})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(read(t, sbom)), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if c := bom.Metadata.Component; c.Name != "kidoban.dev/agent" || c.Version != "v1.2.3" || c.Type != cdx.ComponentTypeContainer {
		t.Errorf("it is about %+v", c)
	}
	refs := map[string]bool{bom.Metadata.Component.BOMRef: true}
	for _, c := range *bom.Components {
		if refs[c.BOMRef] {
			t.Errorf("%s stands twice", c.BOMRef)
		}
		refs[c.BOMRef] = true
	}
	for _, want := range []string{"pkg:golang/std@", "pkg:golang/github.com/google/go-containerregistry@v"} {
		if !slices.ContainsFunc(*bom.Components, func(c cdx.Component) bool { return strings.HasPrefix(c.PackageURL, want) }) {
			t.Errorf("no component %s", want)
		}
	}
	for _, d := range *bom.Dependencies {
		for _, ref := range append(*d.Dependencies, d.Ref) {
			if !refs[ref] {
				t.Errorf("%s is referred to, and is no component", ref)
			}
		}
	}
}

func TestSBOMNeedsGoBinaries(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "script")
	if err := os.WriteFile(binary, []byte("#!/bin/sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := newCommand()
	cmd.SetArgs([]string{"--output=" + filepath.Join(dir, "x.tar"), "--sbom=" + filepath.Join(dir, "x.json"), "--tag=kidoban.dev/a:b", "--entrypoint=/a", binary + ":/a"})
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "/a has no Go build information") {
		t.Error(err)
	}
}

func TestLabels(t *testing.T) {
	index, err := layout.ImageIndexFromPath(unpack(t, pack(t, "--label="+versionLabel+"=v1.2.3", "--label=a=b c")))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config.Labels; len(got) != 2 || got[versionLabel] != "v1.2.3" || got["a"] != "b c" {
		t.Errorf("labels %v", got)
	}
}
