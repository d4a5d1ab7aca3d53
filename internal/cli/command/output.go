package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// APIVersion of everything that commands print as JSON and YAML. docs/cli/schema has a schema for each kind.
const APIVersion = "cli.kidoban.dev/v1alpha1"

// Kinds are the names of the objects that a command prints, each with a value of its Go type.
type Kinds map[string]any

// Output is the flag -o.
type Output struct {
	format  string
	formats []string
	kinds   Kinds
}

// AddOutput adds the flag, with these formats besides table, json and yaml.
func AddOutput(cmd *cobra.Command, kinds Kinds, more ...string) *Output {
	formats := append([]string{"table", "json", "yaml"}, more...)
	return AddFormats(cmd, kinds, "Format: "+strings.Join(formats, ", ")+".", formats...)
}

// AddFormats adds the flag with these formats, the first of which is the default.
func AddFormats(cmd *cobra.Command, kinds Kinds, usage string, formats ...string) *Output {
	o := &Output{format: formats[0], formats: formats, kinds: kinds}
	cmd.Flags().VarP(o, "output", "o", usage)
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.formats, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// String is the format. With Set and Type, Output is the value of a flag, by which a test finds the kinds of all commands.
func (o *Output) String() string { return o.format }

// Set sets the format.
func (o *Output) Set(format string) error {
	o.format = format
	return nil
}

// Type is the flag's, for help.
func (o *Output) Type() string { return "string" }

// Kinds that the command prints.
func (o *Output) Kinds() Kinds { return o.kinds }

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
	if !o.Is("json") && !o.Is("yaml") {
		table(out)
		return nil
	}
	text, err := o.kinds.Encode(v)
	if err == nil && o.Is("yaml") {
		text, err = yaml.JSONToYAML(text)
	}
	if err == nil {
		_, err = out.Write(text)
	}
	return err
}

// Encode returns v as indented JSON, with the API version and the kind of its type.
func (k Kinds) Encode(v any) ([]byte, error) {
	kind, err := k.of(v)
	if err != nil {
		return nil, err
	}
	var fields bytes.Buffer
	encoder := json.NewEncoder(&fields)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return nil, err
	}
	object := fmt.Appendf(nil, `{"apiVersion":%q,"kind":%q`, APIVersion, kind)
	rest, ok := bytes.CutPrefix(fields.Bytes(), []byte("{"))
	if !ok {
		return nil, fmt.Errorf("%s is not a JSON object", kind)
	}
	if !bytes.HasPrefix(rest, []byte("}")) {
		object = append(object, ',')
	}
	var out bytes.Buffer
	err = json.Indent(&out, append(object, rest...), "", "  ")
	return out.Bytes(), err
}

func (k Kinds) of(v any) (string, error) {
	for kind, like := range k {
		if plainType(like) == plainType(v) {
			return kind, nil
		}
	}
	return "", fmt.Errorf("%T has no kind", v)
}

// plainType is the type of a value, or of the value that a pointer leads to.
func plainType(v any) reflect.Type {
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
