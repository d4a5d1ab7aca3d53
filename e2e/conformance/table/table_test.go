package table

import (
	"testing"
	"time"
)

func TestUpdate(t *testing.T) {
	const command = "make conformance"
	page := "# Title\n\n" + beginMark(command) + endMark + "\nmore\n"
	for _, w := range []Row{
		{ProxyMode: "nftables", IPFamilies: "IPv6", Passed: 1, LeftOut: 1, Took: time.Minute, About: About{"v1", "6", "abc", "2001-01-01"}},
		{ProxyMode: "iptables", IPFamilies: "IPv4,IPv6", Passed: 1, LeftOut: 1, Took: time.Minute, About: About{"v1", "6", "abc", "2001-01-01"}},
		{ProxyMode: "nftables", IPFamilies: "IPv6", Passed: 2, Took: time.Minute, About: About{"v2", "6", "def", "2002-02-02"}},
	} {
		var err error
		if page, err = update(page, command, w, "\nbelow\n"); err != nil {
			t.Fatal(err)
		}
	}
	want := "# Title\n\n" + beginMark(command) + heading +
		"| iptables | IPv4,IPv6 | 1 | 0 | 1 | 1m0s | v1 | 6 | abc | 2001-01-01 |\n" +
		"| nftables | IPv6 | 2 | 0 | 0 | 1m0s | v2 | 6 | def | 2002-02-02 |\n" +
		"\nbelow\n" +
		endMark + "\nmore\n"
	if page != want {
		t.Errorf("got\n%s\nwant\n%s", page, want)
	}
	if _, err := update(page, "make another", Row{}, ""); err == nil {
		t.Error("a page without the marks of a command")
	}
}
