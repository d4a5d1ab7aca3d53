package recommend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

var day = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// world is a small cluster whose traffic is recorded.
type world struct {
	t    *testing.T
	in   Input
	ends map[string]observerapi.End
	file *bytes.Buffer
	out  *replay.Writer
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ends: map[string]observerapi.End{}, file: &bytes.Buffer{}}
	w.in.Objects = &replay.Objects{}
	w.in.Coverage = observerapi.Coverage{Since: day, Until: day.Add(24 * time.Hour)}
	if err := replay.WriteHead(w.file, w.in.Coverage, nil, nil); err != nil {
		t.Fatal(err)
	}
	w.out = replay.NewWriter(w.file)
	for i, name := range []string{"n1", "n2"} {
		n := corev1.Node{}
		n.Name = name
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.1%d", i+1)}}
		w.in.Nodes = append(w.in.Nodes, n)
	}
	w.pod("kube-system/Deployment/coredns", "n2", "k8s-app=kube-dns")
	return w
}

// pod of a workload, as "namespace/kind/name", that runs.
func (w *world) pod(workload, node string, labelTexts ...string) observerapi.End {
	parts := strings.Split(workload, "/")
	n := len(w.ends)
	e := observerapi.End{Namespace: parts[0], Pod: fmt.Sprintf("%s-%d", parts[2], n), UID: fmt.Sprint(n), Workload: &agentapi.Workload{Kind: parts[1], Name: parts[2]},
		Labels: labelsOf(labelTexts), NamespaceLabels: map[string]string{corev1.LabelMetadataName: parts[0]}, Node: node, Address: netip.MustParseAddr(fmt.Sprintf("10.50.1.%d", n+1))}
	w.ends[e.Pod] = e
	p := corev1.Pod{}
	p.Namespace, p.Name, p.Labels, p.Spec.NodeName = e.Namespace, e.Pod, e.Labels, node
	p.OwnerReferences = []metav1.OwnerReference{{Kind: parts[1], Name: parts[2], Controller: new(true)}}
	p.Status.PodIPs = []corev1.PodIP{{IP: e.Address.String()}}
	w.in.Objects.Pods = append(w.in.Objects.Pods, p)
	return e
}

func labelsOf(texts []string) map[string]string {
	out, err := labels.ConvertSelectorToLabelsMap(strings.Join(texts, ","))
	if err != nil {
		panic(err)
	}
	return out
}

func outsideEnd(address string, names ...string) observerapi.End {
	return observerapi.End{Address: netip.MustParseAddr(address), DomainNames: names}
}

func nodeEnd(name, address string) observerapi.End {
	return observerapi.End{IsNode: true, Node: name, Address: netip.MustParseAddr(address)}
}

// flow that was allowed n times.
func (w *world) flow(from, to observerapi.End, protocol string, port uint16, n uint64, change ...func(*observerapi.Flow)) {
	f := observerapi.Flow{First: day, Last: day.Add(time.Hour), Source: from, Destination: to, Protocol: protocol, Port: port, Verdict: observerapi.Allowed,
		Sides: observerapi.Complete, Connections: n}
	for _, c := range change {
		c(&f)
	}
	if err := w.out.Write(&f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) policy(text string) {
	var np networkingv1.NetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(text), &np); err != nil {
		w.t.Fatal(err)
	}
	w.in.Objects.NetworkPolicies = append(w.in.Objects.NetworkPolicies, np)
}

// read what was recorded.
func (w *world) read() *Input {
	if err := w.out.Close(); err != nil {
		w.t.Fatal(err)
	}
	recording, err := replay.Open(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.in.Traffic, err = replay.Distinct(w.t.Context(), recording, time.Time{}); err != nil {
		w.t.Fatal(err)
	}
	return &w.in
}

func (w *world) run(o Options) *Result {
	w.t.Helper()
	if o.Namespaces == nil {
		o.Namespaces = []string{"shop"}
	}
	out, err := Run(w.read(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// find the policy of a name.
func find(t *testing.T, r *Result, name string) *networkingv1.NetworkPolicy {
	t.Helper()
	for _, p := range r.Policies {
		if p.NetworkPolicy != nil && p.NetworkPolicy.Name == name {
			return p.NetworkPolicy
		}
	}
	text, _ := json.Marshal(r)
	t.Fatalf("there is no policy %s in %s", name, text)
	return nil
}

func rulesText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func selectorText(s metav1.LabelSelector) string { return metav1.FormatLabelSelector(&s) }

func listed(r *Result) (out []string) {
	for _, d := range r.Decisions {
		text := fmt.Sprintf("%s: %s > %s %s %d, %d", strings.SplitN(string(d.Why), ":", 2)[0], d.FromText, d.ToText, d.Protocol, d.Port, d.Connections)
		if d.Denied {
			text += ", denied"
		}
		out = append(out, text)
	}
	return out
}

func TestWhatIsAllowed(t *testing.T) {
	w := newWorld(t)
	web := w.pod("shop/Deployment/web", "n1", "app=web", "pod-template-hash=6c9", "app.kubernetes.io/version=1.4.2", "helm.sh/chart=web-3.1.0")
	db0 := w.pod("shop/StatefulSet/db", "n1", "app.kubernetes.io/name=db", "apps.kubernetes.io/pod-index=0", "statefulset.kubernetes.io/pod-name=db-0", "controller-revision-hash=db-7d5")
	db1 := w.pod("shop/StatefulSet/db", "n2", "app.kubernetes.io/name=db", "apps.kubernetes.io/pod-index=1", "statefulset.kubernetes.io/pod-name=db-1", "controller-revision-hash=db-7d5")
	w.pod("shop/Deployment/idle", "n2", "app=idle")
	prometheus := w.pod("monitoring/StatefulSet/prometheus", "n1", "app=prometheus")
	dns := w.ends["coredns-0"]
	w.flow(web, db0, "TCP", 5432, 50)
	w.flow(web, db1, "TCP", 5432, 50)
	w.flow(web, dns, "UDP", 53, 900)
	w.flow(prometheus, web, "TCP", 9090, 20)
	w.flow(prometheus, db0, "TCP", 9187, 20)
	w.flow(web, outsideEnd("203.0.113.7", "api.vendor.example"), "TCP", 443, 8)
	w.flow(web, outsideEnd("203.0.113.9", "api.vendor.example", "cdn.vendor.example"), "TCP", 443, 8)
	for i := range 4 {
		w.flow(outsideEnd(fmt.Sprintf("198.51.100.%d", 10+7*i)), web, "TCP", 8080, 3)
	}
	w.flow(outsideEnd("192.0.2.6"), web, "TCP", 8080, 3)
	w.flow(outsideEnd("192.0.2.7"), web, "TCP", 8080, 3)
	w.flow(nodeEnd("n1", "10.0.0.11"), web, "TCP", 8080, 300) // probes
	w.flow(web, nodeEnd("n2", "10.0.0.12"), "TCP", 6443, 5)
	w.flow(nodeEnd("n2", "10.0.0.12"), web, "TCP", 8080, 7)
	w.flow(web, db0, "TCP", 5433, 1)
	w.flow(web, db0, "ICMP", 0, 3)
	w.flow(dns, web, "UDP", 35528, 1, func(f *observerapi.Flow) { f.Reply = true })
	w.flow(db0, web, "TCP", 7000, 0)
	w.flow(web, db0, "TCP", 22, 4, func(f *observerapi.Flow) { f.Verdict = observerapi.Denied })
	w.flow(web, observerapi.End{}, "TCP", 443, 4)
	r := w.run(Options{Audit: true})
	np := find(t, r, "web")
	if got := selectorText(np.Spec.PodSelector); got != "app=web" {
		t.Error("web is selected by", got)
	}
	if np.Labels["kidoban.dev/enforcement"] != "audit" {
		t.Error("labels", np.Labels)
	}
	for got, want := range map[string]string{
		rulesText(np.Spec.Ingress): `[{"ports":[{"protocol":"TCP","port":8080}],"from":[{"ipBlock":{"cidr":"192.0.2.6/31"}},{"ipBlock":{"cidr":"198.51.100.0/24"}}]},` +
			`{"ports":[{"protocol":"TCP","port":9090}],"from":[{"podSelector":{"matchLabels":{"app":"prometheus"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]}]`,
		rulesText(np.Spec.Egress): `[{"ports":[{"protocol":"TCP","port":53},{"protocol":"UDP","port":53}],"to":[{"podSelector":{"matchLabels":{"k8s-app":"kube-dns"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"kube-system"}}}]},` +
			`{"ports":[{"protocol":"TCP","port":6443}],"to":[{"ipBlock":{"cidr":"10.0.0.12/32"}}]},` +
			`{"ports":[{"protocol":"TCP","port":5432}],"to":[{"podSelector":{"matchLabels":{"app.kubernetes.io/name":"db"}}}]}]`,
		rulesText(find(t, r, "db").Spec.PolicyTypes): `["Ingress"]`,
	} {
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	var names string
	for _, p := range r.Policies {
		if p.ClusterPolicy != nil {
			names += p.ClusterPolicy.Name + rulesText(p.ClusterPolicy.Spec.Egress)
		}
	}
	if want := `shop-web-names[{"action":"Accept","to":[{"domainNames":["api.vendor.example"]}],"protocols":[{"tcp":{"destinationPort":{"number":443}}}]}]`; names != want {
		t.Errorf("got\n%s\nwant\n%s", names, want)
	}
	want := []string{
		"a protocol without ports, which NetworkPolicies cannot allow alone: shop/web > shop/db ICMP 0, 3, denied",
		"cannot be decided: shop/web > an address that was not kept TCP 443, 4, denied",
		"denied today: shop/web > shop/db TCP 22, 4",
		"from a node that is not the pod's own: node n2 > shop/web TCP 8080, 7, denied",
		"only packets of connections that were opened before the recording: shop/db > shop/web TCP 7000, 0, denied",
		"seen once: shop/web > shop/db TCP 5433, 1, denied",
	}
	if got := listed(r); !slices.Equal(got, want) {
		t.Errorf("listed\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var silent []string
	for _, s := range r.Silent {
		silent = append(silent, s.Workload.Name+" "+s.Direction)
	}
	if want := []string{"db Egress", "idle Ingress", "idle Egress"}; !slices.Equal(silent, want) {
		t.Errorf("silent %v, want %v", silent, want)
	}
}

func TestLabelsSelectTheWorkloadAlone(t *testing.T) {
	w := newWorld(t)
	web := w.pod("shop/Deployment/web", "n1", "app=web")
	canary := w.pod("shop/Deployment/canary", "n1", "app=web", "track=canary")
	a := w.pod("shop/Deployment/a", "n1", "app=same", "tier=x")
	b := w.pod("shop/Deployment/b", "n1", "app=same", "tier=x")
	c := w.pod("shop/Deployment/c", "n1", "app=same", "tier=y")
	hash := w.pod("shop/Deployment/hash", "n1", "pod-template-hash=77", "version=v2")
	job := w.pod("shop/CronJob/report", "n1", "app=report", "batch.kubernetes.io/job-name=report-29384", "controller-uid=0f1")
	for i, e := range []observerapi.End{web, canary, a, b, c, hash, job} {
		w.flow(outsideEnd("192.0.2.1"), e, "TCP", uint16(8000+i), 9)
	}
	r := w.run(Options{})
	got := map[string]string{}
	for _, p := range r.Policies {
		got[p.NetworkPolicy.Name] = selectorText(p.NetworkPolicy.Spec.PodSelector)
	}
	for name, want := range map[string]string{"web": "app=web,!track", "canary": "app=web,track=canary", "a": "app=same,tier=x", "c": "app=same,tier=y", "report": "app=report", "b": "", "hash": ""} {
		if got[name] != want {
			t.Errorf("%s is selected by %q, want %q", name, got[name], want)
		}
	}
	if len(r.Unselectable) != 1 || r.Unselectable[0].Name != "hash" {
		t.Errorf("unselectable %v", r.Unselectable)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, "shop/a and shop/b") }) {
		t.Errorf("notes %q", r.Notes)
	}
	if rule := find(t, r, "a").Spec.Ingress[0]; len(rule.Ports) != 2 {
		t.Errorf("the ports of a and b: %v", rulesText(rule))
	}
}

func TestRelabelledAndGoneWorkloads(t *testing.T) {
	w := newWorld(t)
	db := w.pod("shop/Deployment/db", "n1", "app=db")
	web := w.pod("shop/Deployment/web", "n1", "app=web-v2")
	web.Labels = labelsOf([]string{"app=web"})
	gone := web
	gone.Workload, gone.Labels, gone.UID = &agentapi.Workload{Kind: "Deployment", Name: "old"}, labelsOf([]string{"app=old"}), "old"
	w.flow(web, db, "TCP", 5432, 9)
	w.flow(gone, db, "TCP", 5432, 9)
	r := w.run(Options{})
	if got := selectorText(find(t, r, "web").Spec.PodSelector); got != "app=web-v2" {
		t.Error("web is selected by", got)
	}
	if got := rulesText(find(t, r, "db").Spec.Ingress[0].From); got != `[{"podSelector":{"matchLabels":{"app":"old"}}},{"podSelector":{"matchLabels":{"app":"web-v2"}}}]` {
		t.Error("peers", got)
	}
	if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, "do not exist any more, so they get no policy: shop/old") || !strings.Contains(notes, "those of today: shop/web") {
		t.Error(notes)
	}
}

func TestScanner(t *testing.T) {
	w := newWorld(t)
	db := w.pod("shop/Deployment/db", "n1", "app=db")
	web := w.pod("shop/Deployment/web", "n1", "app=web")
	scanner := w.pod("lab/Deployment/scanner", "n1", "app=scanner")
	prometheus := w.pod("lab/Deployment/prometheus", "n1", "app=prometheus")
	for i := range 20 {
		w.flow(scanner, db, "TCP", uint16(20+i), 2)
		target := w.pod(fmt.Sprintf("shop/Deployment/target-%d", i), "n2", fmt.Sprintf("app=target-%d", i))
		w.flow(prometheus, target, "TCP", 9090, 2)
	}
	w.flow(scanner, web, "TCP", 8080, 90)
	w.flow(web, db, "TCP", 5432, 90)
	r := w.run(Options{})
	if len(r.Decisions) != 20 || r.Decisions[0].Why != Scanner || !r.Decisions[0].Denied {
		t.Errorf("%d decisions: %v", len(r.Decisions), listed(r))
	}
	if len(find(t, r, "db").Spec.Ingress) != 1 || len(find(t, r, "web").Spec.Ingress) != 1 || len(find(t, r, "target-7").Spec.Ingress) != 1 {
		t.Error("rules", rulesText(r.Policies))
	}
}

func TestManyPortsAndAddresses(t *testing.T) {
	w := newWorld(t)
	ftp := w.pod("shop/Deployment/ftp", "n1", "app=ftp")
	web := w.pod("shop/Deployment/web", "n1", "app=web")
	for i := range 100 {
		w.flow(web, ftp, "TCP", uint16(30000+13*i), 5)
		w.flow(outsideEnd(fmt.Sprintf("198.51.%d.7", i)), web, "TCP", 443, 1)
	}
	for _, port := range []uint16{80, 81, 82, 90} {
		w.flow(web, ftp, "UDP", port, 5)
	}
	w.flow(web, ftp, "TCP", 30001, 2, func(f *observerapi.Flow) { f.Verdict = observerapi.Denied })
	r := w.run(Options{})
	if got := rulesText(find(t, r, "ftp").Spec.Ingress[0].Ports); got != `[{"protocol":"TCP","port":30000,"endPort":31287},{"protocol":"UDP","port":80,"endPort":82},{"protocol":"UDP","port":90}]` {
		t.Error(got)
	}
	from := find(t, r, "web").Spec.Ingress[0].From
	if len(from) != 1 || from[0].IPBlock.CIDR != "0.0.0.0/0" || !slices.Contains(from[0].IPBlock.Except, "10.0.0.0/8") {
		t.Error(rulesText(from))
	}
}

// What is denied today is not opened by a range that is made of ports or addresses.
func TestRangesDoNotOpenWhatIsDenied(t *testing.T) {
	w := newWorld(t)
	ftp := w.pod("shop/Deployment/ftp", "n1", "app=ftp")
	web := w.pod("shop/Deployment/web", "n1", "app=web")
	w.policy("metadata: {name: ftp, namespace: shop}\nspec: {podSelector: {matchLabels: {app: ftp}}, ingress: [{ports: [{port: 30000, endPort: 30006}, {port: 30008, endPort: 40000}]}]}")
	for i := range 30 {
		w.flow(web, ftp, "TCP", uint16(30000+13*i), 5)
	}
	w.flow(web, ftp, "TCP", 30007, 2, func(f *observerapi.Flow) { f.Verdict = observerapi.Denied })
	if got := len(find(t, w.run(Options{}), "ftp-deployment").Spec.Ingress[0].Ports); got != 30 {
		t.Errorf("%d ports, want each alone", got)
	}
}

func TestPoliciesInPlace(t *testing.T) {
	record := func(t *testing.T) *world {
		w := newWorld(t)
		db := w.pod("shop/Deployment/db", "n1", "app=db")
		web := w.pod("shop/Deployment/web", "n1", "app=web")
		w.flow(web, db, "TCP", 5432, 9)
		w.flow(web, db, "TCP", 5433, 9, func(f *observerapi.Flow) { f.Verdict = observerapi.WouldBeDeny })
		w.policy("metadata: {name: db, namespace: shop, labels: {kidoban.dev/enforcement: audit}}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}")
		return w
	}
	t.Run("only missing", func(t *testing.T) {
		r := record(t).run(Options{OnlyMissing: true})
		if got := rulesText(find(t, r, "db-deployment").Spec.Ingress); got != `[{"ports":[{"protocol":"TCP","port":5433}],"from":[{"podSelector":{"matchLabels":{"app":"web"}}}]}]` {
			t.Error(got)
		}
		if got := find(t, r, "db-deployment").Labels["kidoban.dev/enforcement"]; got != "audit" {
			t.Errorf("the policy beside an audited one has the label %q", got)
		}
		if got := find(t, r, "web").Labels["kidoban.dev/enforcement"]; got != "" {
			t.Errorf("the policy of a workload without policies has the label %q", got)
		}
		if got := find(t, r, "web").Spec.PolicyTypes; len(got) != 1 || got[0] != networkingv1.PolicyTypeEgress {
			t.Error(got)
		}
	})
	t.Run("nothing missing", func(t *testing.T) {
		w := record(t)
		w.policy("metadata: {name: all, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}")
		if r := w.run(Options{OnlyMissing: true}); len(r.Policies) != 0 {
			t.Error(rulesText(r.Policies))
		}
	})
	t.Run("tighten", func(t *testing.T) {
		w := record(t)
		w.policy("metadata: {name: wide, namespace: shop}\nspec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}, {ports: [{port: 5432}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}")
		r, err := Tighten(w.read(), Options{Namespaces: []string{"shop"}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range r.Rules {
			got = append(got, fmt.Sprint(s.Name, s.Index, s.Why))
		}
		if want := []string{"wide1" + redundant, "wide2" + unused}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		if len(r.Policies) != 1 || len(r.Policies[0].Spec.Ingress) != 1 {
			t.Error(rulesText(r.Policies))
		}
	})
}

func TestIncompleteRecordings(t *testing.T) {
	w := newWorld(t)
	w.flow(outsideEnd("192.0.2.1"), w.pod("shop/Deployment/web", "n1", "app=web"), "TCP", 80, 9)
	in := w.read()
	in.Coverage.Losses = []observerapi.Loss{{Node: "n7", Reason: "map", Packets: 3}}
	r, err := Run(in, Options{Namespaces: []string{"shop"}})
	if err != nil || r.Complete {
		t.Error("complete, or", err)
	}
	if _, err := Run(in, Options{Namespaces: []string{"shop"}, RequireComplete: true}); !errors.Is(err, ErrIncomplete) {
		t.Error(err)
	}
}
