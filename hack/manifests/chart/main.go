// Command chart makes the Helm chart's templates, CRDs and schema from the kustomizations in config, so that each object is
// described once: chart REPOSITORY. Written by hand are charts/kidoban/values.yaml, its helpers, and the templates that have no
// counterpart there.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart REPOSITORY")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

const chart = "charts/kidoban"

func run(repo string) error {
	for _, t := range templates {
		text, err := t.render(repo)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		if err := write(repo, "templates/"+t.name, text); err != nil {
			return err
		}
	}
	for _, name := range []string{"rules.yaml", "dashboard.json"} { // they have {{ }} of their own
		text, err := os.ReadFile(filepath.Join(repo, "config", "prometheus", name))
		if err != nil {
			return err
		}
		if err := write(repo, "files/"+name, string(text)); err != nil {
			return err
		}
	}
	crds, err := filepath.Glob(filepath.Join(repo, "config", "crd", "bases", "*.yaml"))
	if err != nil || len(crds) == 0 {
		return errors.Join(err, errors.New("no CRDs in config/crd/bases: run make manifests"))
	}
	for _, file := range crds {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := write(repo, "crds/"+filepath.Base(file), labelled(strings.TrimPrefix(string(text), "---\n"))); err != nil {
			return err
		}
	}
	schema, err := schema(repo)
	if err != nil {
		return err
	}
	return write(repo, "values.schema.json", schema)
}

func write(repo, name, text string) error {
	path := filepath.Join(repo, chart, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// A template is made from files of config.
type template struct {
	name string
	// when is the condition of all of it; empty: always.
	when string
	from []string
	// edits are made in order. Each old text must be there exactly once, so that a change in config cannot pass one by.
	edits []edit
}

type edit struct{ old, new string }

func (t template) render(repo string) (string, error) {
	var documents []string
	for _, name := range t.from {
		text, err := os.ReadFile(filepath.Join(repo, "config", name))
		if err != nil {
			return "", err
		}
		for _, document := range strings.Split("\n"+strings.TrimPrefix(string(text), "---\n"), "\n---\n") {
			document = strings.Trim(document, "\n") + "\n"
			documents = append(documents, namespaced(labelled(document)))
		}
	}
	text := strings.Join(documents, "---\n")
	if strings.Contains(text, "{{") {
		return "", errors.New("config has {{, which the chart would evaluate: add it to files instead")
	}
	for _, e := range t.edits {
		if n := strings.Count(text, e.old); n != 1 {
			return "", fmt.Errorf("config has this %d times, want once:\n%s", n, e.old)
		}
		text = strings.Replace(text, e.old, e.new, 1)
	}
	text = strings.ReplaceAll(text, "kidoban-system", "{{ .Release.Namespace }}")
	made := "{{- /* Made from config/" + strings.Join(t.from, ", config/") + " by make manifests. Do not edit. */}}\n"
	if t.when != "" {
		return made + "{{- if " + t.when + " }}\n" + text + "{{- end }}\n", nil
	}
	return made + text, nil
}

var (
	metadata = regexp.MustCompile(`(?m)^metadata:\n(?:  .*\n)+`)
	name     = regexp.MustCompile(`(?m)^  name: .*\n`)
	kind     = regexp.MustCompile(`(?m)^kind: (.*)$`)
)

// labelled adds the labels that config/default adds to each object.
func labelled(document string) string {
	return metadata.ReplaceAllStringFunc(document, func(m string) string {
		const common = "    app.kubernetes.io/name: kidoban\n    app.kubernetes.io/part-of: kidoban\n"
		switch {
		case strings.Contains(m, "app.kubernetes.io/part-of: kidoban\n"):
			return m
		case strings.Contains(m, "  labels:\n"):
			return strings.Replace(m, "  labels:\n", "  labels:\n"+common, 1)
		}
		return m + "  labels:\n" + common
	})
}

// namespaced adds the namespace that config/default adds to each object that is in one.
func namespaced(document string) string {
	clusterScoped := []string{"ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
	if m := kind.FindStringSubmatch(document); m == nil || slices.Contains(clusterScoped, m[1]) {
		return document
	}
	return metadata.ReplaceAllStringFunc(document, func(m string) string {
		if strings.Contains(m, "  namespace: ") {
			return m
		}
		return name.ReplaceAllString(m, "${0}  namespace: kidoban-system\n")
	})
}

// reserved are settings that other values or the manifests set, or that make no sense in a DaemonSet.
var reserved = []string{
	"API_BIND_ADDRESS", "AUDIT", "CLEANUP", "CLUSTER_NAME", "CONTROLLER_TOKEN_FILE", "ENABLE_CLOUDWATCH_LOGS", "ENFORCING_MODE", "FLOWS_BIND_ADDRESS", "GUARD_BOOT", "HEALTH_PROBE_BIND_ADDRESS",
	"KUBECONFIG", "LEADER_ELECT", "MEMORY_LIMIT", "METRICS_BIND_ADDRESS", "NAMESPACE", "NODE_NAME", "NRI_SOCKET", "OBSERVER", "OBSERVER_TOKEN_FILE", "REMOVE_STARTUP_TAINT",
	"SECURE_METRICS", "STREAM_BIND_ADDRESS", "VERSION", "VPC_CNI_SOCKET", "WAIT",
}

// schema fills the names of the settings into the schema: those of docs/configuration.md.
func schema(repo string) (string, error) {
	raw, err := os.ReadFile(filepath.Join(repo, "hack", "manifests", "chart", "values.schema.json"))
	if err != nil {
		return "", err
	}
	page, err := os.ReadFile(filepath.Join(repo, "docs", "configuration.md"))
	if err != nil {
		return "", err
	}
	text := string(raw)
	setting := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|")
	for _, half := range []string{"agent", "controller", "observer"} {
		_, rest, found := strings.Cut(string(page), "<!-- BEGIN "+half+" -->")
		table, _, ends := strings.Cut(rest, "<!-- END "+half+" -->")
		if !found || !ends {
			return "", fmt.Errorf("docs/configuration.md has no table of the %s", half)
		}
		var names []string
		for _, m := range setting.FindAllStringSubmatch(table, -1) {
			if !slices.Contains(reserved, m[1]) {
				names = append(names, `"`+m[1]+`"`)
			}
		}
		text = strings.Replace(text, `"SETTINGS OF THE `+strings.ToUpper(half)+`"`, strings.Join(names, ", "), 1)
	}
	return text, nil
}
