package command

import (
	"bytes"
	"io"
	"testing"

	"github.com/spf13/cobra"
)

type fruit struct {
	Name string `json:"name,omitempty"`
}

func TestOutputsNameTheirKind(t *testing.T) {
	for _, c := range []struct {
		format string
		v      any
		want   string
	}{
		{"json", fruit{"<plum>"}, "{\n  \"apiVersion\": \"cli.kidoban.dev/v1alpha1\",\n  \"kind\": \"Fruit\",\n  \"name\": \"<plum>\"\n}\n"},
		{"json", &fruit{}, "{\n  \"apiVersion\": \"cli.kidoban.dev/v1alpha1\",\n  \"kind\": \"Fruit\"\n}\n"},
		{"yaml", &fruit{"plum"}, "apiVersion: cli.kidoban.dev/v1alpha1\nkind: Fruit\nname: plum\n"},
		{"table", fruit{"plum"}, "a table\n"},
	} {
		cmd := &cobra.Command{}
		o := AddOutput(cmd, Kinds{"Fruit": fruit{}})
		if err := cmd.Flags().Set("output", c.format); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := o.Print(&out, c.v, func(out io.Writer) { _, _ = io.WriteString(out, "a table\n") }); err != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v; want %q", c.format, out.String(), err, c.want)
		}
	}
}

func TestValuesWithoutAKind(t *testing.T) {
	kinds := Kinds{"Fruit": fruit{}, "List": []fruit{}}
	for _, v := range []any{struct{}{}, []fruit{}} {
		if text, err := kinds.Encode(v); err == nil {
			t.Errorf("%T: %s", v, text)
		}
	}
}
