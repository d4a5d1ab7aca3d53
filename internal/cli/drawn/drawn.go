// Package drawn draws manifests as people write them, for tests that compare commands with each other.
package drawn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// RunningPod is a pod that runs, as kubectl prints it. Spec is more of its fields, each with a comma after it.
func RunningPod(namespace, name, address, spec string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %[2]s, namespace: %[1]s, labels: {app: %[2]s}}\nspec: {%[4]scontainers: [{name: c, ports: [{containerPort: 80}]}]}\n"+
		"status: {phase: Running, podIP: %[3]s, podIPs: [{ip: %[3]s}], hostIP: 10.9.0.1}\n---\n", namespace, name, address, spec)
}

// Workload is an object of a kind that makes pods, without a status. More are fields of its spec.
func Workload(kind, namespace, name string, more ...string) string {
	api := "apps/v1"
	template := "template: {metadata: {labels: {app: " + name + "}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}"
	switch kind {
	case "CronJob":
		return fmt.Sprintf("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: %s, namespace: %s}\nspec: {jobTemplate: {spec: {%s}}}\n---\n", name, namespace, template)
	case "Job":
		api = "batch/v1"
	}
	return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: \"%s\", namespace: %s}\nspec: {%s}\n---\n", api, kind, name, namespace, strings.Join(append(more, template), ", "))
}

// NetworkPolicy with a spec.
func NetworkPolicy(namespace, name, spec string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: \"%s\", namespace: %s}\nspec: {%s}\n---\n", name, namespace, spec)
}

// Manifests are workloads, running pods and Services of several namespaces, with the policies before and after a change.
type Manifests struct {
	Workloads, Before, After string
	// ClusterBefore and ClusterAfter are ClusterNetworkPolicies, to be added to the others.
	ClusterBefore, ClusterAfter string
	Addressing                  model.Addressing
}

// New manifests, the same for each seed.
func New(seed uint64) Manifests {
	r := random{rand.New(rand.NewPCG(seed, 7))}
	var m Manifests
	switch a := &m.Addressing; seed % 4 {
	case 1:
		a.IPv4, a.IPv6 = true, true
	case 2:
		a.PodCIDRs = []netip.Prefix{netip.MustParsePrefix(r.pick("10.0.0.0/15", "10.244.0.0/16", "172.0.0.0/8"))}
	case 3:
		a.IPv6 = true
	}
	m.Workloads = r.workloads()
	if m.Addressing.IPv6 && !m.Addressing.IPv4 {
		m.Addressing.IPv4 = strings.Contains(m.Workloads, "podIP") // running pods have IPv4 addresses
	}
	m.Before, m.After = r.policies(), r.policies()
	m.ClusterBefore, m.ClusterAfter = r.clusterPolicies(), r.clusterPolicies()
	return m
}

type random struct{ *rand.Rand }

func (r random) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r random) workloads() string {
	var b strings.Builder
	for _, ns := range []string{"a", "b"} {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {team: %s}}\n---\n", ns, r.pick("red", "blue"))
		for _, app := range []string{"web", "db"} {
			switch r.IntN(4) {
			case 0:
				b.WriteString(RunningPod(ns, app, fmt.Sprintf("10.%d.0.%d", r.IntN(2), 1+r.IntN(250)), ""))
			case 1:
				b.WriteString(Workload("CronJob", ns, app))
			default:
				b.WriteString(Workload(r.pick("Deployment", "StatefulSet"), ns, app, fmt.Sprintf("replicas: %d", r.IntN(3))))
			}
			fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %[2]s, namespace: %[1]s}\nspec: {selector: {app: %[2]s}, ports: [{port: 8080, targetPort: 80}]}\n---\n", ns, app)
		}
	}
	return b.String()
}

func (r random) peer() string {
	switch r.IntN(5) {
	case 0:
		return "podSelector: {matchLabels: {app: " + r.pick("web", "db") + "}}"
	case 1:
		return "namespaceSelector: {matchLabels: {team: " + r.pick("red", "blue") + "}}"
	case 2:
		return "ipBlock: {cidr: " + r.pick("10.0.0.0/8", "10.0.0.0/16", "10.0.0.5/32", "192.168.0.0/16", "203.0.113.0/24") + "}"
	case 3:
		return "ipBlock: {cidr: 0.0.0.0/0, except: [" + r.pick("10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16", "10.1.0.0/16", "203.0.113.0/25") + "]}"
	}
	return "ipBlock: {cidr: \"" + r.pick("::/0", "fd00::/8", "2001:db8::/32") + "\"}"
}

func (r random) rules(field string) string {
	var rules []string
	for range r.IntN(3) {
		var peers []string
		for range r.IntN(3) {
			peers = append(peers, "{"+r.peer()+"}")
		}
		ports := r.pick("", "", "{port: 80}", "{port: 8080}", "{port: 70, endPort: 90}")
		rules = append(rules, fmt.Sprintf("{%s: [%s], ports: [%s]}", field, strings.Join(peers, ", "), ports))
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

func (r random) policies() string {
	var b strings.Builder
	for i := range 1 + r.IntN(4) {
		selector := r.pick("", "matchLabels: {app: web}", "matchLabels: {app: db}")
		types := r.pick("Ingress", "Egress", "Ingress, Egress")
		b.WriteString(NetworkPolicy(r.pick("a", "b"), fmt.Sprint("p", i), fmt.Sprintf("podSelector: {%s}, policyTypes: [%s], ingress: %s, egress: %s", selector, types, r.rules("from"), r.rules("to"))))
	}
	return b.String()
}

func (r random) clusterPods() string {
	if r.IntN(2) == 0 {
		return "namespaces: {matchLabels: {team: " + r.pick("red", "blue") + "}}"
	}
	return "pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: " + r.pick("web", "db") + "}}}"
}

func (r random) clusterRules(field string) string {
	var rules []string
	for range r.IntN(3) {
		peer := r.clusterPods()
		if field == "to" && r.IntN(2) == 0 {
			peer = "networks: [" + r.pick("10.0.0.0/8", "10.0.0.0/16, 192.168.0.0/16", "0.0.0.0/0", "\"::/0\"", "10.0.0.5/32") + "]"
		}
		ports := r.pick("", "", ", protocols: [{tcp: {destinationPort: {number: 80}}}]", ", protocols: [{tcp: {destinationPort: {range: {start: 70, end: 90}}}}]")
		rules = append(rules, fmt.Sprintf("{action: %s, %s: [{%s}]%s}", r.pick("Accept", "Deny", "Pass"), field, peer, ports))
	}
	return "[" + strings.Join(rules, ", ") + "]"
}

func (r random) clusterPolicies() string {
	var b strings.Builder
	for i := range r.IntN(4) {
		fmt.Fprintf(&b, "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c%d}\nspec: {tier: %s, priority: %d, subject: {%s}, ingress: %s, egress: %s}\n---\n",
			i, r.pick("Admin", "Admin", "Baseline"), r.IntN(3), r.clusterPods(), r.clusterRules("from"), r.clusterRules("to"))
	}
	return b.String()
}
