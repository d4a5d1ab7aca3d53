package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/drawn"
)

const (
	privateExcepted = "podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]}}]}]"
	denyIngress     = "podSelector: {}, policyTypes: [Ingress]"
)

func fromBlock(cidr string) string {
	return "podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: \"" + cidr + "\"}}]}]"
}

func TestExplainIsRightOrReportsThatItIsNot(t *testing.T) {
	two := drawn.Workload("Deployment", "a", "web") + drawn.Workload("Deployment", "b", "db")
	many := ""
	for i := range 4000 {
		many += fmt.Sprintf("{ipBlock: {cidr: 203.%d.%d.0/24}}, ", i/256, i%256)
	}
	service := "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: a}\nspec: {type: LoadBalancer, clusterIP: 10.96.0.4, clusterIPs: [10.96.0.4], externalIPs: [198.51.100.9], selector: {app: web}, " +
		"ports: [{port: 443, targetPort: 80, nodePort: 30443}%s]}\nstatus: {loadBalancer: {ingress: [{ip: 198.51.100.7}, {hostname: lb.example.com}]}}\n---\n"
	behind := fmt.Sprintf(service, "") + drawn.RunningPod("a", "web", "10.4.0.7", "nodeName: n1, ") + drawn.NetworkPolicy("a", "some", fromBlock("192.0.2.0/24"))
	for name, tc := range map[string]struct {
		manifests string
		args      string
		want      []string
		not       string
		code      int
	}{
		"private blocks are excepted":                    {two + drawn.NetworkPolicy("a", "out", privateExcepted), "--from a/web --to b/db:80", []string{"DEPENDS", "? Egress of a/web-0: depends", "give --pod-cidr", "at 10.0.0.0/8", "denied: no rule allows it"}, "ALLOWED", 2},
		"with the pods' block inside":                    {two + drawn.NetworkPolicy("a", "out", privateExcepted), "--pod-cidr 10.244.0.0/16 --from a/web --to b/db:80", []string{"DENIED"}, "depends", 1},
		"with the pods' block outside":                   {two + drawn.NetworkPolicy("a", "out", privateExcepted), "--pod-cidr 100.64.0.0/16 --from a/web --to b/db:80", []string{"ALLOWED"}, "depends", 0},
		"with a block that cuts the pods'":               {two + drawn.NetworkPolicy("a", "out", privateExcepted), "--pod-cidr 172.0.0.0/8 --from a/web --to b/db:80", []string{"DEPENDS", "172.16.0.0/12"}, "", 2},
		"a block is everything":                          {two + drawn.NetworkPolicy("b", "in", fromBlock("0.0.0.0/0")), "--from a/web --to b/db:80", []string{"ALLOWED"}, "DEPENDS", 0},
		"a block of the source's":                        {two + drawn.NetworkPolicy("b", "in", fromBlock("10.0.0.0/8")), "--from a/web --to b/db:80", []string{"DEPENDS", "Ingress of b/db-0: depends"}, "", 2},
		"a selector decides beside it":                   {two + drawn.NetworkPolicy("b", "in", strings.Replace(fromBlock("10.0.0.0/8"), "from: [", "from: [{namespaceSelector: {}}, ", 1)), "--from a/web --to b/db:80", []string{"ALLOWED"}, "DEPENDS", 0},
		"another policy denies it whatever":              {two + drawn.NetworkPolicy("b", "in", denyIngress) + drawn.NetworkPolicy("a", "out", privateExcepted), "--from a/web --to b/db:80", []string{"DENIED"}, "DEPENDS", 1},
		"a public block":                                 {two + drawn.NetworkPolicy("b", "in", fromBlock("203.0.113.0/24")), "--from a/web --to b/db:80", []string{"DENIED", "taken to be a private one: give --pod-cidr"}, "", 1},
		"an address that is known":                       {drawn.RunningPod("a", "web", "10.4.0.7", "") + drawn.Workload("Deployment", "b", "db") + drawn.NetworkPolicy("b", "in", fromBlock("10.0.0.0/8")), "--from a/web --to b/db:80", []string{"ALLOWED"}, "DEPENDS", 0},
		"an address of another pod":                      {drawn.RunningPod("c", "x", "10.4.0.8", "") + two + drawn.NetworkPolicy("b", "in", fromBlock("10.4.0.8/32")), "--from a/web --to b/db:80", []string{"DENIED"}, "DEPENDS", 1},
		"Services' addresses":                            {two + drawn.NetworkPolicy("b", "in", fromBlock("10.96.0.0/12")), "--service-cidr 10.96.0.0/12 --from a/web --to b/db:80", []string{"DENIED"}, "DEPENDS", 1},
		"JSON has the mark":                              {two + drawn.NetworkPolicy("a", "out", privateExcepted), "-o json --from a/web --to b/db:80", []string{`"verdict": "depends"`, `"allowed": false`, `"invented": true`, `"reason": "Depends"`, `"10.0.0.0/8"`}, "", 2},
		"JSON has the assumption":                        {two + drawn.NetworkPolicy("b", "in", fromBlock("203.0.113.0/24")), "-o json --from a/web --to b/db:80", []string{`"assumes": "the address of`}, "", 1},
		"IPv6 from outside":                              {drawn.Workload("Deployment", "a", "web") + drawn.NetworkPolicy("a", "in", fromBlock("2001:db8:1::/48")), "--from 2001:db8:1::5 --to a/web:80", []string{"ALLOWED"}, "", 0},
		"IPv6 from outside, denied":                      {drawn.Workload("Deployment", "a", "web") + drawn.NetworkPolicy("a", "in", fromBlock("2001:db8:1::/48")), "--from 2001:db8:2::5 --to a/web:80", []string{"DENIED"}, "", 1},
		"IPv6 among pods":                                {two + drawn.NetworkPolicy("b", "in", fromBlock("::/0")), "--ip-families IPv6 --from a/web --to b/db:80", []string{"ALLOWED"}, "", 0},
		"both families among pods":                       {two + drawn.NetworkPolicy("b", "in", fromBlock("::/0")), "--ip-families IPv4,IPv6 --from a/web --to b/db:80", []string{"ALLOWED", "DENIED"}, "", 1},
		"no families given":                              {two + drawn.NetworkPolicy("b", "in", fromBlock("::/0")), "--from a/web --to b/db:80", []string{"DENIED"}, "ALLOWED", 1},
		"the beginning of a name":                        {drawn.Workload("CronJob", "a", "backup") + drawn.RunningPod("a", "db-0", "10.4.0.1", "") + drawn.NetworkPolicy("a", "in", denyIngress), "--from a/backup --to a/db:80", []string{"DENIED", "a/db-0"}, "", 1},
		"the beginning of two names":                     {drawn.RunningPod("a", "db-0", "10.4.0.1", "") + drawn.RunningPod("a", "db-old", "10.4.0.2", "") + drawn.NetworkPolicy("a", "in", denyIngress), "--from 192.0.2.1 --to a/db:80", []string{"no pod or workload db", "db-0, db-old"}, "", 2},
		"a CronJob between runs":                         {drawn.Workload("CronJob", "a", "backup") + drawn.RunningPod("a", "db", "10.4.0.1", "") + drawn.NetworkPolicy("a", "in", denyIngress), "--from a/backup --to a/db:80", []string{"DENIED"}, "", 1},
		"a Job that ended":                               {drawn.Workload("Job", "a", "load") + strings.Replace(drawn.RunningPod("a", "load-x", "10.4.0.9", ""), "Running", "Succeeded", 1) + drawn.RunningPod("a", "db", "10.4.0.1", ""), "--from a/load --to a/db:80", []string{"ALLOWED"}, "", 0},
		"scaled to zero":                                 {drawn.Workload("Deployment", "a", "web", "replicas: 0") + drawn.RunningPod("a", "db", "10.4.0.1", "") + drawn.NetworkPolicy("a", "in", denyIngress), "--from a/web --to a/db:80", []string{"DENIED"}, "", 1},
		"a pod that waits":                               {strings.Replace(drawn.RunningPod("a", "web", "", ""), "phase: Running, podIP: , podIPs: [{ip: }], hostIP: 10.9.0.1", "phase: Pending", 1) + drawn.RunningPod("a", "db", "10.4.0.1", "") + drawn.NetworkPolicy("a", "in", denyIngress), "--from a/web --to a/db:80", []string{"DENIED", "address not known"}, "", 1},
		"a load balancer":                                {behind, "--from 203.0.113.9 --to 198.51.100.7:443", []string{"DENIED", "through Service a/web:443", "externalTrafficPolicy is Cluster"}, "", 1},
		"an external IP":                                 {behind, "--from 192.0.2.9 --to 198.51.100.9:443", []string{"ALLOWED", "externalTrafficPolicy is Cluster"}, "", 0},
		"a node port":                                    {behind, "--from 203.0.113.9 --to 10.9.0.1:30443", []string{"DENIED", "through Service a/web:443"}, "", 1},
		"a node's other port":                            {behind, "--from 203.0.113.9 --to 10.9.0.1:22", []string{"ALLOWED", "not a pod's own address"}, "through Service", 0},
		"a node port at an address that may be a node's": {behind, "--from 203.0.113.9 --to 10.9.0.77:30443", []string{"ALLOWED", "30443 is a node port of Service a/web: if 10.9.0.77 is the address of a node"}, "", 0},
		"the pods' side of a node port":                  {behind, "--from 203.0.113.9 --to a/web:30443", []string{"DENIED", "30443 is the node port of Service a/web, which sends to the pods' port 80: ask about that, or --to svc/a/web:443"}, "", 1},
		"a cluster IP has no caveat":                     {behind, "--from 203.0.113.9 --to 10.96.0.4:443", []string{"DENIED"}, "externalTrafficPolicy", 1},
		"a load balancer that keeps addresses":           {strings.Replace(behind, "type: LoadBalancer", "type: LoadBalancer, externalTrafficPolicy: Local", 1), "--from 192.0.2.9 --to 198.51.100.7:443", []string{"ALLOWED", "externalTrafficPolicy is Local"}, "", 0},
		"an address of no Service":                       {behind, "--service-cidr 10.96.0.0/16 --from 192.0.2.9 --to 10.96.7.7:443", []string{"no Service that was read has it"}, "", 2},
		"the caveat in JSON":                             {behind, "-o json --from 203.0.113.9 --to 198.51.100.7:443", []string{`"notes": [`, "externalTrafficPolicy is Cluster"}, "", 1},
		"Endpoints without a selector": {"apiVersion: v1\nkind: Service\nmetadata: {name: ext, namespace: a}\nspec: {ports: [{port: 5432}]}\n---\napiVersion: v1\nkind: Endpoints\nmetadata: {name: ext, namespace: a}\n" +
			"subsets: [{addresses: [{ip: 203.0.113.50}], ports: [{port: 5432}]}]\n---\n" + drawn.RunningPod("a", "web", "10.4.0.7", ""), "--from a/web --to svc/a/ext:5432", []string{"ALLOWED", "203.0.113.50 TCP 5432"}, "", 0},
		"a peer on the host network": {drawn.Workload("Deployment", "m", "scraper") + strings.Replace(drawn.Workload("DaemonSet", "k", "agent"), "spec: {containers", "spec: {hostNetwork: true, containers", 1) +
			drawn.NetworkPolicy("m", "out", "podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: agent}}}]}]"),
			"--from m/scraper --to k/agent:80", []string{"DENIED", "host network: no selector matches pod k/agent-0; use an ipBlock of the nodes", "pods of its own node every connection is allowed"}, "no address yet", 1},
		"a running peer on the host network": {drawn.RunningPod("m", "scraper", "10.4.0.7", "nodeName: n1, ") + drawn.RunningPod("k", "agent", "10.9.0.2", "hostNetwork: true, nodeName: n2, ") +
			drawn.NetworkPolicy("m", "out", "podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]"),
			"--from m/scraper --to k/agent:80", []string{"DENIED", "host network: no selector matches pod k/agent"}, "", 1},
		"two pods with one address": {strings.Replace(drawn.RunningPod("a", "old", "10.4.0.7", ""), "labels:", "creationTimestamp: 2026-01-01T00:00:00Z, labels:", 1) +
			strings.Replace(drawn.RunningPod("b", "new", "10.4.0.7", ""), "labels:", "creationTimestamp: 2026-01-02T00:00:00Z, labels:", 1) + drawn.RunningPod("b", "client", "10.4.0.8", "") +
			drawn.NetworkPolicy("a", "deny", denyIngress), "--from b/client --to b/new:80", []string{"ALLOWED", "also the address of a/old: the youngest pod, b/new, counts"}, "", 0},
		"a rule of 4,000 blocks":   {two + drawn.NetworkPolicy("b", "in", "podSelector: {}, policyTypes: [Ingress], ingress: [{from: ["+many+"{namespaceSelector: {matchLabels: {no: such}}}]}]"), "--from 192.0.2.1 --to b/db:80", []string{"DENIED", "3995 more peers", "more reasons"}, "203.9.9.0/24", 1},
		"the block that decides":   {two + drawn.NetworkPolicy("b", "in", "podSelector: {}, policyTypes: [Ingress], ingress: [{from: ["+many+"]}]"), "--from 203.9.9.1 --to b/db:80", []string{"ALLOWED", "203.9.9.0/24", "more peers"}, "", 0},
		"another port":             {two + drawn.NetworkPolicy("b", "in", "podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 8080}]}]"), "--from a/web --to b/db:80", []string{"rule allows TCP 8080; you asked about TCP 80"}, "", 1},
		"no rule of several":       {two + drawn.NetworkPolicy("b", "x", denyIngress) + drawn.NetworkPolicy("b", "y", denyIngress), "--from a/web --to b/db:80", []string{"denied: selected by 2 NetworkPolicies (b/x, b/y); none of their rules allows this connection"}, "", 1},
		"a policy that is invalid": {two + drawn.NetworkPolicy("b", "in", "podSelector: {}, ingress: [{ports: [{port: 80, protocol: tcp}]}]"), "--from a/web --to b/db:80", []string{"the API server would reject", `NetworkPolicy b/in: spec.ingress[0].ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"`}, "ALLOWED", 2},
		"another engine's policy":  {two + "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x, namespace: b}\nspec: {}\n", "--from a/web --to b/db:80", []string{"not evaluated: CiliumNetworkPolicy b/x", "ALLOWED"}, "", 0},
		"the same in JSON":         {two + "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x, namespace: b}\nspec: {}\n", "-o json --from a/web --to b/db:80", []string{`"notes": [`}, "", 0},
		"a workload of another's kind": {strings.NewReplacer("apps/v1", "argoproj.io/v1alpha1", "Deployment", "Rollout").Replace(drawn.Workload("Deployment", "a", "web")) + drawn.NetworkPolicy("a", "in", denyIngress),
			"--from 192.0.2.1 --to a/web:80", []string{"DENIED", "read as workloads, by their pod templates alone: Rollout a/web", "Rollout web"}, "", 1},
		"the same kind as one of Kubernetes'": {"apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web, namespace: a}\nspec: {template: {spec: {containers: [{name: c}]}}}\n---\n" + drawn.NetworkPolicy("a", "in", denyIngress),
			"--from 192.0.2.1 --to a/web:80 -o json", []string{`"verdict": "denied"`, "Service.serving.knative.dev a/web"}, "", 1},
		"a policy given twice, with differences": {two + drawn.NetworkPolicy("b", "in", denyIngress) + drawn.NetworkPolicy("b", "in", fromBlock("0.0.0.0/0")), "--from a/web --to b/db:80",
			[]string{"ALLOWED", "given more than once, with differences (the last one counts): NetworkPolicy b/in"}, "", 0},
		"a policy given twice, the same": {two + drawn.NetworkPolicy("b", "in", denyIngress) + drawn.NetworkPolicy("b", "in", denyIngress), "--from a/web --to b/db:80", []string{"DENIED"}, "more than once", 1},
		"another engine's NetworkPolicy": {two + "apiVersion: crd.projectcalico.org/v1\nkind: NetworkPolicy\nmetadata: {name: x, namespace: b}\nspec: {}\n", "--from a/web --to b/db:80", []string{"not evaluated: NetworkPolicy.crd.projectcalico.org b/x", "ALLOWED"}, "", 0},
		"one name of two kinds":          {drawn.Workload("Deployment", "a", "app") + drawn.Workload("CronJob", "a", "app") + drawn.NetworkPolicy("a", "in", denyIngress), "--from 192.0.2.1 --to a/app:80", []string{"Deployment app", "CronJob app"}, "", 1},
		"no objects":                     {"# nothing\n", "--from a/web --to b/db:80", []string{"no Kubernetes objects"}, "", 2},
		"wrong families":                 {two, "--ip-families v4 --from a/web --to b/db:80", []string{"give IPv4, IPv6 or IPv4,IPv6"}, "", 2},
		"a wrong block":                  {two, "--pod-cidr 10.0.0.0 --from a/web --to b/db:80", []string{"not a valid CIDR"}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			got := run([]byte(tc.manifests), append([]string{"explain", "-f", "-"}, strings.Fields(tc.args)...)...)
			for _, want := range append(tc.want, fmt.Sprintf("exit code %d", tc.code)) {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if tc.not != "" && strings.Contains(got, tc.not) {
				t.Errorf("%q in\n%s", tc.not, got)
			}
			if lines := strings.Count(got, "\n"); lines > 120 && !strings.Contains(tc.args, "json") {
				t.Errorf("%d lines", lines)
			}
		})
	}
}

// matrix and diff mark what rests on private addresses of pods whose own are not known, as explain does; diff has totals.
func TestMarksOfAssumedAddresses(t *testing.T) {
	two := drawn.Workload("Deployment", "a", "web") + drawn.Workload("Deployment", "b", "db")
	known := drawn.RunningPod("a", "web", "10.4.0.7", "") + drawn.RunningPod("b", "db", "10.4.0.8", "")
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "in.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	public, other := drawn.NetworkPolicy("b", "in", fromBlock("203.0.113.0/24")), drawn.NetworkPolicy("b", "in", fromBlock("203.0.112.0/23"))
	open := drawn.NetworkPolicy("b", "in", "podSelector: {}, policyTypes: [Ingress], ingress: [{}]")
	const note = "* only if the pods have private addresses"
	for name, tc := range map[string]struct {
		args []string
		want []string
		not  string
	}{
		"matrix":                       {[]string{"matrix", "-f", file(two + public)}, []string{"✘*", note}, "✔*"},
		"matrix in JSON":               {[]string{"matrix", "-f", file(two + public), "-o", "json"}, []string{`"assumesPrivate": true`}, ""},
		"matrix in CSV":                {[]string{"matrix", "-f", file(two + public), "-o", "csv"}, []string{"verdict,assumed", "denied,true", "allowed,\n"}, ""},
		"matrix with the pods' block":  {[]string{"matrix", "-f", file(two + public), "--pod-cidr", "10.4.0.0/16"}, []string{"✘"}, "*"},
		"matrix of IPv6":               {[]string{"matrix", "-f", file(two + drawn.NetworkPolicy("b", "in", fromBlock("fd00::/8"))), "--ip-families", "IPv6"}, []string{"?"}, "*"},
		"matrix of running pods":       {[]string{"matrix", "-f", file(known + public)}, []string{"✘"}, "*"},
		"matrix and loopback excepted": {[]string{"matrix", "-f", file(two + drawn.NetworkPolicy("b", "in", strings.Replace(fromBlock("0.0.0.0/0"), "\"}", "\", except: [127.0.0.0/8, 224.0.0.0/4]}", 1)))}, []string{"✔"}, "*"},
		"diff":                         {[]string{"diff", "--base", file(two + open), "-f", file(two + public)}, []string{"all ports *", note, "Total: ports gained by 0 pairs, lost by 1 pair and 4,294,967,040 addresses"}, ""},
		"diff in JSON":                 {[]string{"diff", "--base", file(two + open), "-f", file(two + public), "-o", "json"}, []string{`"assumesPrivate": true`, `"ipv4Addresses": 4294967040`, `"pairs": 1`}, ""},
		"diff of public blocks":        {[]string{"diff", "--base", file(two + public), "-f", file(two + other)}, []string{"with public ones more pairs would differ: give --pod-cidr", "Total: ports gained by 0 pairs and 256 addresses, lost by 0 pairs\n"}, note},
		"diff with the pods' block":    {[]string{"diff", "--base", file(two + public), "-f", file(two + other), "--pod-cidr", "10.4.0.0/16"}, []string{"256 addresses"}, "--pod-cidr"},
		"diff counts addresses once":   {[]string{"diff", "--base", file(two + drawn.NetworkPolicy("a", "in", denyIngress) + drawn.NetworkPolicy("b", "in", denyIngress)), "-f", file(two + drawn.NetworkPolicy("a", "in", fromBlock("203.0.113.0/24")) + public)}, []string{"gained by 0 pairs and 256 addresses"}, ""},
		"diff of one address":          {[]string{"diff", "--base", file(known + public), "-f", file(known + drawn.NetworkPolicy("b", "in", fromBlock("203.0.113.9/32")))}, []string{"lost by 0 pairs and 255 addresses"}, "private"},
	} {
		t.Run(name, func(t *testing.T) {
			got := run(nil, tc.args...)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if tc.not != "" && strings.Contains(got, tc.not) {
				t.Errorf("%q in\n%s", tc.not, got)
			}
		})
	}
}
