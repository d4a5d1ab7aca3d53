package lab_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// named are pods with policies that have DNS names: web may ask DNS and reach two names at one port each, but not in a network that is denied;
// mute may not ask, and the node has learned the names from web's questions.
const named = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {kubernetes.io/metadata.name: shop}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: mute, labels: {app: mute}}
spec: {containers: [{name: mute, image: mute}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: nameless, labels: {app: nameless}}
spec: {containers: [{name: nameless, image: nameless}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: mute}
spec:
  tier: Admin
  priority: 1
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: mute}}}}
  egress:
  - {action: Deny, to: [{pods: {namespaceSelector: {}, podSelector: {}}}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 2
  subject: {pods: {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [web, mute]}]}}}
  egress:
  - {action: Accept, to: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}}], protocols: [{udp: {destinationPort: {number: 53}}}]}
  - {action: Accept, to: [{domainNames: [api.example.com, "*.cdn.example.com"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}
`

// The lab's resolver answers for the names of policies, and packets show what they allow.
func TestNames(t *testing.T) {
	program := binary(t)
	run := func(manifests string) (map[string]string, string) {
		t.Helper()
		cmd := exec.Command(program, "lab", "-f", "-", "-o", "json", "--ip-families=IPv4,IPv6", "-n", "shop")
		var out, errOut bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(manifests), &out, &errOut
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s%s", err, &out, &errOut)
		}
		var result struct{ Cells []cell }
		if err := json.Unmarshal(out.Bytes(), &result); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, c := range result.Cells {
			if c.Measured != c.Verdict {
				t.Errorf("%+v", c)
			}
			if c.To.Kind == "DomainName" && c.Port == 443 {
				got[c.From.Name+" "+c.To.Name] = c.Measured
			}
		}
		return got, errOut.String()
	}
	got, messages := run(named)
	for key, want := range map[string]string{
		"web api.example.com": "allowed", "web any.cdn.example.com": "allowed", "mute api.example.com": "allowed",
		"nameless api.example.com": "allowed",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %s", key, got[key], want)
		}
	}
	if !strings.Contains(messages, "the lab has made their resolver, pod kube-system/kube-dns") {
		t.Errorf("messages:\n%s", messages)
	}
	silenced := strings.Replace(named, "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: mute}}}}", "{namespaces: {}}", 1)
	got, messages = run(silenced)
	if len(got) != 0 || !strings.Contains(messages, "no pod to ask a resolver") {
		t.Errorf("without DNS: %v\n%s", got, messages)
	}
}
