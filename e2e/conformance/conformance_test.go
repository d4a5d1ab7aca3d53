package main

import (
	"regexp"
	"strings"
	"testing"
)

const report = `<testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="passed"></testcase>
<testcase name="[It] [sig-network] Netpol should allow [Feature:NetworkPolicy] [sig-network, Feature:NetworkPolicy]" status="passed"></testcase>
<testcase name="[It] [sig-network] Netpol [Feature:SCTPConnectivity] should deny [sig-network]" status="skipped"></testcase>
<testcase name="[It] [sig-network] Services should work [sig-network]" status="skipped"></testcase>
EXTRA</testsuite></testsuites>`

var sctp = []reason{{regexp.MustCompile(`SCTPConnectivity`), "no SCTP"}}

func parse(t *testing.T, extra string) *results {
	t.Helper()
	r, err := parseResults([]byte(strings.Replace(report, "EXTRA", extra, 1)), regexp.MustCompile("Netpol"), sctp)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResults(t *testing.T) {
	r := parse(t, "")
	if err := r.err(); err != nil {
		t.Error(err)
	}
	if len(r.passed) != 1 || r.passed[0] != "[sig-network] Netpol should allow [Feature:NetworkPolicy]" {
		t.Errorf("passed: %q", r.passed)
	}
	if r.leftOut["[sig-network] Netpol [Feature:SCTPConnectivity] should deny"] != "no SCTP" || len(r.leftOut) != 1 {
		t.Errorf("left out: %q", r.leftOut)
	}
}

func TestResultsThatAreNotGood(t *testing.T) {
	for extra, want := range map[string]string{
		`<testcase name="[It] [sig-network] Netpol x" status="failed"/>`:      "1 specs failed",
		`<testcase name="[It] [sig-network] Netpol x" status="interrupted"/>`: "1 specs failed",
		`<testcase name="[SynchronizedAfterSuite]" status="panicked"/>`:       "1 specs failed",
		`<testcase name="[It] [sig-network] Netpol x" status="skipped"/>`:     "1 specs skipped themselves",
	} {
		if err := parse(t, extra).err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", extra, err)
		}
	}
	if err := (&results{}).err(); err == nil {
		t.Error("that nothing ran is good")
	}
}

func TestAgnhostImage(t *testing.T) {
	got, err := agnhostImage("a.example/e2e-test-images/agnhost:2.55\na.example/e2e-test-images/agnhost:2.66.1\na.example/e2e-test-images/agnhost:2.7\nb.example/other/agnhost:9.9\n")
	if want := "a.example/e2e-test-images/agnhost:2.66.1"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if got, err := agnhostImage("a.example/nginx:1\n"); err == nil {
		t.Errorf("%q of a list without it", got)
	}
}

func TestLeftOutList(t *testing.T) {
	want := "\nLeft out:\n\n- [sig-network] Netpol [Feature:SCTPConnectivity] should deny: no SCTP\n"
	if got := parse(t, "").leftOutList(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := (&results{}).leftOutList(); got != "" {
		t.Errorf("nothing was left out, and there stands %q", got)
	}
}
