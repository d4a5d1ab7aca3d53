package command

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// Output is the flag -o.
type Output struct {
	format  string
	formats []string
}

// AddOutput adds the flag, with these formats besides table, json and yaml.
func AddOutput(cmd *cobra.Command, more ...string) *Output {
	o := &Output{formats: append([]string{"table", "json", "yaml"}, more...)}
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "Format: "+strings.Join(o.formats, ", ")+".")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// Is reports whether this format is asked for.
func (o *Output) Is(format string) bool { return o.format == format }

// Check that the format is one of those there are.
func (o *Output) Check() error {
	if slices.Contains(o.formats, o.format) {
		return nil
	}
	return fmt.Errorf("-o %s: the formats are %s", o.format, strings.Join(o.formats, ", "))
}

// Print v as JSON or YAML, or as table says.
func (o *Output) Print(out io.Writer, v any, table func(io.Writer)) error {
	switch o.format {
	case "json":
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		return encoder.Encode(v)
	case "yaml":
		text, err := yaml.Marshal(v)
		if err == nil {
			_, err = out.Write(text)
		}
		return err
	}
	table(out)
	return nil
}
