//go:build hubble

package hubble

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// flows of the last hour, by their port: the port is the number of minutes since. 5 is denied, 7 is UDP, 9 comes from outside and 11 goes
// there, 13 is ICMP and has no port.
func flows() []observerapi.Flow {
	now := time.Now()
	at := func(minutes uint16) observerapi.Flow {
		return hubbletest.FlowAt(minutes, now.Add(-time.Duration(minutes)*time.Minute))
	}
	denied, datagram, in, out, ping := at(5), at(7), at(9), at(11), at(13)
	denied.Ingress, denied.Verdict = &hubbletest.ByDefault, observerapi.Denied
	datagram.Protocol = "UDP"
	in.Source, in.Destination, in.Service = observerapi.End{Address: netip.MustParseAddr("192.0.2.9")}, hubbletest.Web, ""
	in.Egress, in.Ingress = nil, &hubbletest.Allowed
	out.Destination, out.Service = hubbletest.Vendor, ""
	ping.Protocol, ping.Port = "ICMP", 0
	return []observerapi.Flow{at(1), at(3), denied, datagram, in, out, ping}
}

// portsOf reads the destination ports of the flows in lines of JSON; 0 is a flow without a port.
func portsOf(t *testing.T, text string) []int {
	t.Helper()
	var out []int
	for line := range strings.Lines(text) {
		var message struct {
			Flow *struct {
				L4 map[string]struct {
					Port int `json:"destination_port"`
				} `json:"l4"`
			} `json:"flow"`
		}
		if err := json.Unmarshal([]byte(line), &message); err != nil {
			if strings.HasSuffix(line, "\n") {
				t.Fatalf("%v in %q", err, line)
			}
			return out // the command is still writing it
		}
		if message.Flow != nil {
			port := 0
			for _, l4 := range message.Flow.L4 {
				port = l4.Port
			}
			out = append(out, port)
		}
	}
	return out
}

func TestObserve(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		c := command{path, serve(t, hubbletest.New(flows()...))}
		for _, tc := range []struct {
			args string
			want []int
		}{
			{"", []int{0, 11, 9, 7, 5, 3, 1}},
			{"--all", []int{0, 11, 9, 7, 5, 3, 1}},
			{"--last 3", []int{5, 3, 1}},
			{"--first 2", []int{0, 11}},
			{"--since 6m", []int{5, 3, 1}},
			{"--since 10m --until 4m", []int{9, 7, 5}},
			{"--first 1 --until 4m", []int{0}},
			{"--namespace shop", []int{0, 11, 9, 7, 5, 3, 1}},
			{"--namespace bank", nil},
			{"--pod shop/db", []int{0, 7, 5, 3, 1}},
			{"--pod shop/db --last 2", []int{3, 1}},
			{"--to-pod shop/web", []int{9}},
			{"--verdict DROPPED", []int{5}},
			{"--not --verdict FORWARDED", []int{5}},
			{"--type drop", []int{5}},
			{"--to-port 7", []int{7}},
			{"--port 7", []int{7}},
			{"--not --port 7 --last 3", []int{5, 3, 1}},
			{"--protocol udp", []int{7}},
			{"--protocol icmp", []int{0}},
			{"--ip 192.0.2.9", []int{9}},
			{"--to-ip 2001:db8::/64", []int{11}},
			{"--to-fqdn *.vendor.example --last 5", []int{11}},
			{"--fqdn *.vendor.example", []int{11}},
			{"--label app=web --last 2", []int{3, 1}},
			{"--from-label app=db", nil},
			{"--service shop/database --last 2", []int{3, 1}},
			{"--workload StatefulSet/db --last 2", []int{3, 1}},
			{"--identity world", []int{11, 9}},
			{"--traffic-direction ingress", []int{9, 5}},
			{"--node-name node-2", []int{5}},
			{"-4 --last 2", []int{3, 1}},
			{"--not --from-pod shop/web", []int{9}},
		} {
			t.Run(tc.args, func(t *testing.T) {
				got := portsOf(t, c.run(t, append([]string{"observe", "-o", "jsonpb"}, strings.Fields(tc.args)...)...))
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			})
		}
	})
}

func TestAFilterThatCannotBeHonouredIsAnErrorByName(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		c := command{path, serve(t, hubbletest.New(flows()...))}
		for args, want := range map[string]string{
			"--http-status 200":  "http_status_code",
			"--tcp-flags SYN":    "tcp_flags",
			"--protocol http":    "protocol",
			"--type l7":          "event_type",
			"--from-port 80":     "source_port",
			"--snat-ip 10.0.0.1": "source_ip_xlated",
			"--cluster east":     "cluster_name",
			"--node-label a=b":   "node_labels",
			"--verdict ERROR":    "verdict",
		} {
			if got := c.fail(t, append([]string{"observe"}, strings.Fields(args)...)...); !strings.Contains(got, want) {
				t.Errorf("%s: %q does not name %s", args, got, want)
			}
		}
	})
}

func TestFieldsOfTheNewestCommandAreErrorsByName(t *testing.T) {
	path, err := build(commands["newest"])
	if err != nil {
		t.Fatal(err)
	}
	c := command{path, serve(t, hubbletest.New(flows()...))}
	for args, want := range map[string]string{
		"--encrypted":                        "encrypted",
		`--allowlist={"ip_trace_id":["7"]}`:  "ip_trace_id",
		`--denylist={"encrypted":[true]}`:    "encrypted",
		`--cel-expression=_flow.source.ID>1`: "experimental",
	} {
		if got := c.fail(t, "observe", args); !strings.Contains(got, want) {
			t.Errorf("%s: %q does not name %s", args, got, want)
		}
	}
}

func TestFollowSince(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		r := hubbletest.New(flows()...)
		r.Subscribed = func() { r.Put(hubbletest.FlowAt(101, time.Now())) }
		c := command{path, serve(t, r)}
		stdout, _, _ := c.start(t, "observe", "--since", "4m", "--follow", "-o", "jsonpb")
		eventually(t, "the flows since then", func() bool { return len(portsOf(t, stdout.String())) == 3 })
		r.Put(hubbletest.FlowAt(102, time.Now()))
		want := []int{3, 1, 101, 102}
		eventually(t, "the new flow", func() bool { return len(portsOf(t, stdout.String())) >= len(want) })
		if d := cmp.Diff(want, portsOf(t, stdout.String())); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	})
}

func TestFilteredLastIsPrintedAtOnce(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		r := hubbletest.New(flows()...)
		c := command{path, serve(t, r)}
		stdout, _, _ := c.start(t, "observe", "--last", "2", "--follow", "--to-pod", "shop/db", "--protocol", "tcp", "-o", "jsonpb")
		eventually(t, "the last flows, though nothing arrives", func() bool {
			return slices.Equal(portsOf(t, stdout.String()), []int{3, 1})
		})
	})
}

func TestFormats(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		c := command{path, serve(t, hubbletest.New(flows()...))}
		for format, want := range map[string][]string{
			"compact": {"shop/web-1", "-> shop/db-0:5", "INGRESS DENIED", "(TCP 5; 1 connection; egress allowed by ClusterNetworkPolicy base; ingress denied"},
			"dict":    {"SOURCE: shop/web-1", "DESTINATION: shop/db-0:5", "VERDICT: DENIED"},
			"table":   {"shop/db-0:5", "DENIED"},
			"jsonpb":  {`"ingress_denied_by":[{"name":"db","namespace":"shop","kind":"NetworkPolicy"}]`, `"verdict":"DROPPED"`},
			"json":    {`"egress_allowed_by":[{"name":"base"`, `"drop_reason_desc":"POLICY_DENIED"`},
		} {
			got := c.run(t, "observe", "--verdict", "DROPPED", "-o", format)
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("-o %s: no %q in\n%s", format, w, got)
				}
			}
		}
		got := c.run(t, "observe", "--verdict", "DROPPED", "--print-policy-names", "--print-node-name")
		for _, w := range []string{"DENIED BY db (NetworkPolicy)", "[node-2]"} {
			if !strings.Contains(got, w) {
				t.Errorf("no %q in\n%s", w, got)
			}
		}
	})
}

func TestStatusAndLists(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		r := hubbletest.New(flows()...)
		c := command{path, serve(t, r)}
		expect := func(args []string, want ...string) {
			t.Helper()
			got := c.run(t, args...)
			for _, w := range want {
				if !strings.Contains(got, w) {
					t.Errorf("%s: no %q in\n%s", strings.Join(args, " "), w, got)
				}
			}
			if strings.Contains(got, "NaN") {
				t.Errorf("%s: not a number in\n%s", strings.Join(args, " "), got)
			}
		}
		r.NodeList = []hubble.Node{{Name: "node-1"}, {Name: "node-2"}, {Name: "node-3"}}
		expect([]string{"status"}, "Ok", "Connected Nodes: 0/3", "Unavailable Nodes: 3", "node-3")
		r.NodeList = []hubble.Node{{Name: "node-1", Connected: true, Since: time.Now().Add(-time.Hour)}, {Name: "node-2"}}
		expect([]string{"status"}, "Connected Nodes: 1/2", "- node-2", "Current/Max Flows: 7")
		expect([]string{"list", "nodes"}, "node-1", "Connected", "node-2", "Unavailable")
		expect([]string{"list", "namespaces"}, "shop")
		expect([]string{"status", "-o", "json"}, `"num_flows":"7"`)
	})
}

// A reader of some namespaces sees that the observer is there, and that nodes are not for it.
func TestStatusAndListsWithoutAllRights(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		r := hubbletest.New(flows()...)
		r.NodeList, r.Forbidden = []hubble.Node{{Name: "node-1", Connected: true}}, true
		c := command{path, serve(t, r)}
		if got := c.run(t, "status"); !strings.Contains(got, "Ok") || strings.Contains(got, "node-1") || strings.Contains(got, "NaN") {
			t.Error(got)
		}
		if got := c.run(t, "observe", "--last=1"); got == "" {
			t.Error("no flow")
		}
		if got := c.fail(t, "list", "nodes"); !strings.Contains(got, "PermissionDenied") {
			t.Error(got)
		}
	})
}

func TestAWrongTokenIsAnError(t *testing.T) {
	forEachCommand(t, func(t *testing.T, path string) {
		s := serve(t, hubbletest.New(flows()...))
		s.token = "another"
		if got := (command{path, s}).fail(t, "observe"); !strings.Contains(got, "the token is not valid") {
			t.Errorf("got %q", got)
		}
	})
}
