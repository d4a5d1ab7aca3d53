package main

import (
	"regexp"
	"strings"
	"testing"
	"time"
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

func TestPage(t *testing.T) {
	page := "# Title\n\n" + beginMark + endMark + "\nmore\n"
	r := parse(t, "")
	for _, w := range []row{
		{proxyMode: "nftables", ipFamilies: "IPv6", took: time.Minute, about: about{"v1", "6", "abc", "2001-01-01"}},
		{proxyMode: "iptables", ipFamilies: "IPv4,IPv6", took: time.Minute, about: about{"v1", "6", "abc", "2001-01-01"}},
		{proxyMode: "nftables", ipFamilies: "IPv6", took: time.Minute, about: about{"v2", "6", "def", "2002-02-02"}},
	} {
		var err error
		if page, err = update(page, w, r); err != nil {
			t.Fatal(err)
		}
	}
	want := "# Title\n\n" + beginMark + heading +
		"| iptables | IPv4,IPv6 | 1 | 0 | 1 | 1m0s | v1 | 6 | abc | 2001-01-01 |\n" +
		"| nftables | IPv6 | 1 | 0 | 1 | 1m0s | v2 | 6 | def | 2002-02-02 |\n" +
		"\nLeft out:\n\n- [sig-network] Netpol [Feature:SCTPConnectivity] should deny: no SCTP\n" +
		endMark + "\nmore\n"
	if page != want {
		t.Errorf("got\n%s\nwant\n%s", page, want)
	}
	if _, err := update("# Title\n", row{}, r); err == nil {
		t.Error("a page without marks")
	}
}
