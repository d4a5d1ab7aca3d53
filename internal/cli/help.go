package cli

import (
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// helpWidth is how many columns the help of a command has at most.
const helpWidth = 100

// usage is cobra's template, but for the flags of kubeconfig: those are the same for every command, and `options` lists them.
const usage = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if gt (len .Aliases) 0}}

Aliases:
  {{.NameAndAliases}}{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Available Commands:{{range .Commands}}{{if .IsAvailableCommand}}
{{kidobanCommand .}}{{end}}{{end}}{{end}}{{with kidobanFlags .}}

Flags:
{{.}}{{end}}

{{if .HasAvailableSubCommands}}Use "{{.CommandPath}} [command] --help" for more about a command, and
{{else}}Use {{end}}"{{.Root.CommandPath}} options" for the flags that every command has.
`

const help = `{{with (or .Long .Short)}}{{. | kidobanWrapped}}

{{end}}{{if or .Runnable .HasSubCommands}}{{.UsageString}}{{end}}`

// setHelp makes the help of all commands fit.
func setHelp(root *cobra.Command) {
	cobra.AddTemplateFunc("kidobanWrapped", wrapped)
	cobra.AddTemplateFunc("kidobanFlags", flagsOf)
	cobra.AddTemplateFunc("kidobanCommand", func(c *cobra.Command) string { return summary(c) })
	root.SetUsageTemplate(usage)
	root.SetHelpTemplate(help)
}

// flagsOf are a command's own flags.
func flagsOf(cmd *cobra.Command) string {
	return strings.TrimRight(cmd.LocalNonPersistentFlags().FlagUsagesWrapped(helpWidth), "\n")
}

// summary is a command's line in the list of its parent.
func summary(c *cobra.Command) string {
	name := "  " + c.Name() + strings.Repeat(" ", max(1, c.NamePadding()-len(c.Name())+1))
	return indented(name, strings.Repeat(" ", len(name)), c.Short)
}

// wrapped breaks the lines of a text that are too wide, and joins those of a paragraph. A line that continues is indented as the text
// behind the last run of blanks in it, as in a table, or as its begin.
func wrapped(text string) string {
	var out []string
	for line := range strings.Lines(joined(text)) {
		line = strings.TrimRight(line, " \n")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		head := line[:indent]
		if i := strings.LastIndex(line, "  "); i > indent {
			head = line[:i+2]
		}
		out = append(out, indented(head, strings.Repeat(" ", len(head)), line[len(head):]))
	}
	return strings.Join(out, "\n")
}

// joined has a line for each paragraph. Lines that begin with blanks, as those of a table, stay lines.
func joined(text string) string {
	var out []string
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, " \n")
		last := len(out) - 1
		isText := func(s string) bool { return s != "" && s[0] != ' ' }
		if last >= 0 && isText(line) && isText(out[last]) {
			out[last] += " " + line
		} else {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// indented puts words behind a head, and on as many lines as they need.
func indented(head, indent, text string) string {
	var b strings.Builder
	b.WriteString(head)
	at := len(head)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > helpWidth:
			b.WriteString("\n" + indent)
			at = len(indent)
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}

// optionsCommand lists the flags that all commands have.
func optionsCommand(env *command.Env, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:     "options",
		Short:   "List the flags that every command has",
		Long:    "List the flags that every command has: those of kubeconfig, as of kubectl, --ascii and --observer-account.",
		Example: "  kubectl kidoban options",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			flags := pflag.NewFlagSet("", pflag.ContinueOnError)
			flags.AddFlagSet(root.PersistentFlags())
			_, err := env.Out.Write([]byte(flags.FlagUsagesWrapped(helpWidth)))
			return err
		},
	}
}
