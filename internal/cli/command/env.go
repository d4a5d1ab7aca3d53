package command

import (
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kidoban/kidoban/internal/plain"
)

// Env is the environment that a command runs in.
type Env struct {
	genericiooptions.IOStreams
	// Config are kubeconfig's flags.
	Config *genericclioptions.ConfigFlags
	// ASCII is the flag --ascii: symbols are letters.
	ASCII bool
	// ObserverAccount is the flag --observer-account: NAMESPACE/NAME of the ServiceAccount with whose tokens the observer is asked. Empty: the
	// viewer in kidoban's namespace.
	ObserverAccount string
	// Now is the time, which tests set.
	Now func() time.Time
}

// NewEnv of a process.
func NewEnv() *Env {
	return &Env{
		IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Config:    genericclioptions.NewConfigFlags(true).WithDiscoveryBurst(300),
		Now:       time.Now,
	}
}

// ours are the sequences that commands write to a terminal: of Paint, and of progress.
var ours = regexp.MustCompile("^(\x1b\\[(0|1|2|31|32|33|1;97;41)m|\r\x1b\\[K)")

// KeepPlain keeps control characters out of the output: names in it come from objects that others write.
func (e *Env) KeepPlain() { e.Out, e.ErrOut = e.keepPlain(e.Out), e.keepPlain(e.ErrOut) }

// Raw are the streams as they are: for output that is not text, such as an archive, and for a process that cleans its own.
func (e *Env) Raw() genericiooptions.IOStreams {
	raw := func(out io.Writer) io.Writer {
		if p, ok := out.(plainOutput); ok {
			return p.out
		}
		return out
	}
	return genericiooptions.IOStreams{In: e.In, Out: raw(e.Out), ErrOut: raw(e.ErrOut)}
}

// plainOutput is out without control characters.
type plainOutput struct {
	io.Writer
	out io.Writer
}

func (e *Env) keepPlain(out io.Writer) io.Writer {
	allowed := ours
	if !isTerminal(out) {
		allowed = nil
	}
	return plainOutput{plain.Writer(asciiWriter{out, &e.ASCII}, allowed), out}
}

// ascii has a character for each symbol, so that tables stay aligned.
var ascii = strings.NewReplacer("✔", "y", "✘", "n", "±", "~", "·", ".", "≠", "!", "→", ">", "←", "<", "…", "_", "–", "-", "×", "x")

// asciiWriter replaces symbols if the flag is set when it is written to. It gets characters that are complete.
type asciiWriter struct {
	io.Writer
	on *bool
}

func (w asciiWriter) Write(p []byte) (int, error) {
	if !*w.on {
		return w.Writer.Write(p)
	}
	if _, err := ascii.WriteString(w.Writer, string(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// fileOf is the file that is written to, if it is one.
func fileOf(out io.Writer) (*os.File, bool) {
	if p, ok := out.(plainOutput); ok {
		out = p.out
	}
	f, ok := out.(*os.File)
	return f, ok
}

// Namespace that objects without one are in: the flag's, or the context's, or default.
func (e *Env) Namespace() string {
	ns, _, err := e.Config.ToRawKubeConfigLoader().Namespace()
	if err != nil || ns == "" {
		return "default"
	}
	return ns
}

// Width of the terminal in columns, or 0 where the output is not a terminal.
func (e *Env) Width() int {
	f, ok := fileOf(e.Out)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 80
	}
	return width
}

// Paint colours the output: only on a terminal, and not with NO_COLOR (https://no-color.org).
func (e *Env) Paint() Paint { return Paint(isTerminal(e.Out) && os.Getenv("NO_COLOR") == "") }

// Interactive reports whether progress may be shown.
func (e *Env) Interactive() bool { return isTerminal(e.ErrOut) }

func isTerminal(w io.Writer) bool {
	f, ok := fileOf(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Paint colours text if it is true.
type Paint bool

// Colours are SGR parameters (ECMA-48).
const (
	Bold   = "1"
	Dim    = "2"
	Red    = "31"
	Green  = "32"
	Yellow = "33"
	Alarm  = "1;97;41"
)

// Text in a colour.
func (p Paint) Text(sgr, text string) string {
	if !p || sgr == "" {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// Files is the flag -f of commands that work without a cluster.
func Files(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "filename", "f", nil,
		"Read this file, directory or - (stdin) instead of a cluster; may be repeated. A directory with a kustomization is built.")
}
