package matrix

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"testing"
)

func TestTheShellProbeTellsOpenFromRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := func(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }
	open, refused := port(l), port(closed)
	_ = closed.Close()
	out, err := exec.Command("sh", "-c", shellProbe, "sh", "127.0.0.1", open, "127.0.0.1", refused).Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := readShell(out, 2)
	if err != nil || !slices.Equal(got, []bool{true, true}) {
		t.Errorf("%v, %v of\n%s", got, err, out)
	}
}

func TestWhatProbesPrint(t *testing.T) {
	if got, err := readShell([]byte("1 silent\n0 open\n"), 2); err != nil || !slices.Equal(got, []bool{true, false}) {
		t.Errorf("%v, %v", got, err)
	}
	for name, text := range map[string]string{"nothing to connect with": "no-tool\n", "a line too few": "0 open\n", "garbage": "sh: syntax error\n"} {
		if got, err := readShell([]byte(text), 2); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
	if got, err := readProbe([]byte(`{"outcome":"open"}{"outcome":"timed out"}{"outcome":"refused"}`), 3); err != nil || !slices.Equal(got, []bool{true, false, true}) {
		t.Errorf("%v, %v", got, err)
	}
}
