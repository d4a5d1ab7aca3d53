// Command recorded prints, as lines of JSON, what the evaluators of kube-network-policies decide about the flows of a recording under its policies and
// those of some files of NetworkPolicies, which replace policies of the same name.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kidoban/kidoban/hack/oracle"
	"github.com/kidoban/kidoban/internal/replay"
)

func main() {
	flags := flag.NewFlagSet("recorded", flag.ExitOnError) // cyclonus brings flags of ginkgo into the global one
	recording := flags.String("flows", "", "the recording, which kubectl kidoban replay --record wrote")
	namespace := flags.String("namespace", "default", "of policies that name none")
	_ = flags.Parse(os.Args[1:]) // it exits on an error
	if err := run(context.Background(), os.Stdout, *recording, *namespace, flags.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "recorded:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, recording, namespace string, files []string) error {
	in, err := os.Open(recording)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	r, err := replay.Open(in)
	if err != nil {
		return err
	}
	var policies replay.Policies
	var nodes []corev1.Node
	if r.Objects != nil {
		policies, nodes = r.Objects.Policies, r.Objects.Nodes
	}
	for _, name := range files {
		more, err := read(name, namespace)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		policies = policies.With(replay.Policies{NetworkPolicies: more})
	}
	traffic, err := replay.Distinct(ctx, r, time.Time{})
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(out)
	lines := json.NewEncoder(buffered)
	for i := range traffic {
		if traffic[i].Reply {
			continue
		}
		if err := lines.Encode(oracle.JudgeRecorded(&traffic[i], nodes, policies)); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// read the NetworkPolicies of a file, which may have comments and nothing else.
func read(name, namespace string) (out []networkingv1.NetworkPolicy, err error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	for documents := yaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		var np networkingv1.NetworkPolicy
		switch err := documents.Decode(&np); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, err
		case np.Kind == "" && np.Name == "": // comments
			continue
		case np.Kind != "NetworkPolicy":
			return nil, fmt.Errorf("it has a %s, want NetworkPolicies only", np.Kind)
		}
		if np.Namespace == "" {
			np.Namespace = namespace
		}
		out = append(out, np)
	}
}
