package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/spf13/cobra"
)

func newPushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push NAME:TAG FILE.tar...",
		Short: "Push image tars to a registry, as one image for several platforms",
		Long:  "Push image tars to a registry, as one image for several platforms. Credentials are those of docker login.",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := name.NewTag(args[0], name.StrictValidation)
			if err != nil {
				return err
			}
			digest, err := push(cmd.Context(), ref, args[1:])
			if err == nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s@%s\n", ref, digest)
			}
			return err
		},
	}
}

func push(ctx context.Context, ref name.Tag, tars []string) (v1.Hash, error) {
	dir, err := os.MkdirTemp("", "image-push-")
	if err != nil {
		return v1.Hash{}, err
	}
	defer os.RemoveAll(dir) // not before the registry has the layers
	var images []mutate.IndexAddendum
	for i, file := range tars {
		image, err := open(file, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return v1.Hash{}, fmt.Errorf("%s: %w", file, err)
		}
		images = append(images, image)
	}
	index := mutate.AppendManifests(empty.Index, images...)
	if err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
		return v1.Hash{}, err
	}
	return index.Digest()
}

// open the image in a tar that write has made. Its files go to a directory.
func open(file, dir string) (mutate.IndexAddendum, error) {
	if err := extract(file, dir); err != nil {
		return mutate.IndexAddendum{}, err
	}
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return mutate.IndexAddendum{}, err
	}
	if len(manifest.Manifests) != 1 {
		return mutate.IndexAddendum{}, fmt.Errorf("it has %d images, want 1", len(manifest.Manifests))
	}
	found := manifest.Manifests[0]
	image, err := index.Image(found.Digest)
	return mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: found.Platform}}, err
}

// extract the regular files of a tar, within the directory.
func extract(file, dir string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
			return fmt.Errorf("%s is not a file of an image", header.Name)
		}
		path := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		out, err := os.Create(path)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, r)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}
