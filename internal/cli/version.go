package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/version"
)

// Versions is the output of `version -o json`. Those of the cluster are the tags or digests of the pods' images, with the number of pods.
type Versions struct {
	Client     string         `json:"client"`
	Controller map[string]int `json:"controller,omitempty"`
	Agents     map[string]int `json:"agents,omitempty"`
	Observer   map[string]int `json:"observer,omitempty"`
	// Problems are versions that do not work together.
	Problems []string `json:"problems,omitempty"`
}

func versionCommand(env *command.Env) *cobra.Command {
	var clientOnly bool
	var namespace string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this plugin, the controller, the agents and the observer",
		Long: `Print the version of this plugin and, by the images of their pods, those of the controller, the agents and the observer. Neighbouring
minor versions work together; others are reported.`,
		Example: `  kubectl kidoban version
  kubectl kidoban version --client`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"Versions": Versions{}})
	cmd.Flags().BoolVar(&clientOnly, "client", false, "Print the version of this plugin only, and ask no cluster.")
	cmd.Flags().StringVar(&namespace, "kidoban-namespace", agents.DefaultNamespace, "kidoban's own namespace.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		v := &Versions{Client: version.String()}
		var err error
		if !clientOnly {
			err = v.ask(cmd.Context(), env, namespace)
		}
		if e := output.Print(env.Out, v, v.write); e != nil {
			return e
		}
		return err // with the client's version printed all the same
	}
	return cmd
}

func (v *Versions) ask(ctx context.Context, env *command.Env, namespace string) error {
	c, err := env.Client()
	if err != nil {
		return err
	}
	for component, out := range map[string]*map[string]int{"controller": &v.Controller, "agent": &v.Agents, "observer": &v.Observer} {
		var pods corev1.PodList
		err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": "kidoban", "app.kubernetes.io/component": component})
		if err != nil {
			return err
		}
		*out = map[string]int{}
		for i := range pods.Items {
			for _, container := range pods.Items[i].Spec.Containers {
				(*out)[versionOf(container.Image)]++
			}
		}
	}
	v.Problems = v.apart()
	if len(v.Controller)+len(v.Agents) == 0 {
		return fmt.Errorf("no pods of kidoban in namespace %s: is kidoban installed there? (--kidoban-namespace)", namespace)
	}
	return nil
}

// versionOf an image is its tag, or its digest.
func versionOf(image string) string {
	if _, digest, ok := strings.Cut(image, "@"); ok {
		return digest
	}
	name := image[strings.LastIndex(image, "/")+1:]
	if _, tag, ok := strings.Cut(name, ":"); ok {
		return tag
	}
	return "latest"
}

func (v *Versions) write(out io.Writer) {
	fmt.Fprintf(out, "client       %s\n", v.Client)
	for _, part := range []struct {
		name     string
		versions map[string]int
	}{{"controller", v.Controller}, {"agents", v.Agents}, {"observer", v.Observer}} {
		var texts []string
		for _, tag := range slices.Sorted(maps.Keys(part.versions)) {
			texts = append(texts, fmt.Sprintf("%s (%d)", tag, part.versions[tag]))
		}
		if len(texts) > 0 {
			fmt.Fprintf(out, "%-12s %s\n", part.name, strings.Join(texts, ", "))
		}
	}
	for _, p := range v.Problems {
		fmt.Fprintln(out, p)
	}
}
