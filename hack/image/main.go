// Command image packs static binaries into an OCI image, without a container
// engine. The same files give the same bytes: all times are the epoch, and the order is fixed.
//
//	image --output agent.tar --tag kidoban.dev/agent:dev --entrypoint /agent bin/agent:/agent
//	image push registry.example.com/kidoban/agent:v0.1.0 amd64/agent.tar arm64/agent.tar
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
)

func main() {
	if err := newCommand().ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	var output, sbom, platform string
	var spec imageSpec
	cmd := &cobra.Command{
		Use:           "image --output FILE.tar --tag NAME:TAG --entrypoint PATH FILE:PATH...",
		Short:         "Pack static binaries into an OCI image tar",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			ref, err := name.NewTag(spec.tag, name.StrictValidation)
			if err != nil {
				return err
			}
			spec.tag = ref.Name()
			p, err := v1.ParsePlatform(platform)
			if err != nil {
				return err
			}
			if p.OS == "" || p.Architecture == "" {
				return fmt.Errorf("platform %q: want os/architecture", platform)
			}
			spec.platform = *p
			if spec.files, err = parseFiles(args); err != nil {
				return err
			}
			if sbom != "" {
				if err := spec.writeSBOM(sbom); err != nil {
					return err
				}
			}
			return spec.write(output)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&output, "output", "", "tar file to write, an OCI image layout")
	flags.StringVar(&spec.tag, "tag", "", "full name of the image, with its tag")
	flags.StringArrayVar(&spec.entrypoint, "entrypoint", nil, "what runs in the container; repeat it for arguments")
	flags.StringVar(&spec.user, "user", "65532", "user (name, or number and :group) that it runs as")
	flags.StringToStringVar(&spec.labels, "label", nil, "labels of the image, such as "+versionLabel+"=v1.2.3; repeat it for more")
	flags.StringVar(&sbom, "sbom", "", "file to write a bill of materials to, as CycloneDX in JSON: FILEs have to be Go binaries")
	flags.StringVar(&platform, "platform", "linux/amd64", "what the binaries were built for")
	for _, required := range []string{"output", "tag", "entrypoint"} {
		if err := cmd.MarkFlagRequired(required); err != nil {
			panic(err) // no such flag
		}
	}
	cmd.AddCommand(newPushCommand())
	return cmd
}

// parseFiles reads FILE:PATH arguments: a file here and its absolute path in the image.
func parseFiles(args []string) ([]file, error) {
	var files []file
	for _, arg := range args {
		i := strings.LastIndexByte(arg, ':')
		if i <= 0 || !strings.HasPrefix(arg[i+1:], "/") {
			return nil, fmt.Errorf("%q: want FILE:PATH, with an absolute PATH", arg)
		}
		content, err := os.ReadFile(arg[:i])
		if err != nil {
			return nil, err
		}
		if len(content) == 0 {
			return nil, errors.New(arg[:i] + " is empty")
		}
		files = append(files, file{path: arg[i+1:], mode: 0o755, content: content})
	}
	return files, nil
}
