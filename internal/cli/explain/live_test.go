package explain

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
)

const shop = `
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: store}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: client}]}
status: {phase: Running, podIP: 192.168.0.1, hostIP: 192.168.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: open, namespace: store}
spec: {nodeName: n1, containers: [{name: open}]}
status: {phase: Running, podIP: 10.0.1.1, hostIP: 192.168.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, containers: [{name: web}]}
status: {phase: Running, podIP: 10.0.1.2, hostIP: 192.168.0.1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop, uid: u1, generation: 3}
spec: {podSelector: {}, ingress: [{ports: [{port: 80}]}]}
`

var (
	networkPolicy = agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "web"}
	strictMode    = agentapi.PolicyRef{Kind: "EnforcingMode", Name: agentapi.ModeStrict}
	manifest      = agentapi.PolicyRef{Kind: "Manifest", Namespace: "shop", Name: "kept-open"}
	older         = agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "older"}
)

// says is what the agent of node n1 says of pod shop/web, with mode standard and all in force, less these changes.
func says(change func(web *agentapi.Pod, p *agentapi.Policy)) func(string) (*said, error) {
	web := agentapi.Pod{Namespace: "shop", Name: "web", Mode: agentapi.ModeStandard, State: agentapi.StateInForce,
		Ingress: agentapi.PodPolicy{Isolated: true, Policies: []agentapi.PolicyRef{networkPolicy}}}
	version := agentapi.Version{UID: "u1", Generation: 3}
	p := agentapi.Policy{PolicyRef: networkPolicy, State: agentapi.StateInForce, Newest: version, Realised: &agentapi.Realised{Version: version}}
	change(&web, &p)
	return func(string) (*said, error) {
		return &said{pods: []agentapi.Pod{web}, policies: []agentapi.Policy{p}}, nil
	}
}

func askShop(t *testing.T, from, to string, ask func(string) (*said, error)) *Answer {
	t.Helper()
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("shop", strings.NewReader(shop)); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := Ask(c, "default", from, to)
	if err != nil {
		t.Fatal(err)
	}
	if err := inForce(c, answer, ask); err != nil {
		t.Fatal(err)
	}
	return answer
}

func TestWhatIsInForceDiffers(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(web *agentapi.Pod, p *agentapi.Policy)
		want   []string
	}{
		"in force": {func(*agentapi.Pod, *agentapi.Policy) {}, nil},
		"audit": {func(web *agentapi.Pod, _ *agentapi.Policy) { web.Mode = agentapi.ModeAudit },
			[]string{"audit mode: denied connections are logged and pass"}},
		"the pod is pending": {func(web *agentapi.Pod, _ *agentapi.Policy) { web.State = agentapi.StatePending },
			[]string{"the newest state of its agent is not in force yet"}},
		"no policy selects it there": {func(web *agentapi.Pod, _ *agentapi.Policy) { web.Ingress = agentapi.PodPolicy{} },
			[]string{"NetworkPolicy shop/web is not in force there yet"}},
		"the policy is not known there": {func(web *agentapi.Pod, p *agentapi.Policy) { web.Ingress, p.Name = agentapi.PodPolicy{}, "other" },
			[]string{"NetworkPolicy shop/web is not in force there yet"}},
		"one that is new waits for its groups": {func(web *agentapi.Pod, p *agentapi.Policy) {
			web.Ingress, p.State, p.Realised, p.WaitingFor = agentapi.PodPolicy{}, agentapi.StatePending, nil, []string{"shop/g-1"}
		}, []string{"NetworkPolicy shop/web is not in force there yet: it waits for shop/g-1"}},
		"an older generation": {func(_ *agentapi.Pod, p *agentapi.Policy) { p.Realised.Generation = 2 },
			[]string{"NetworkPolicy shop/web is in force there at generation 2; its newest generation is 3"}},
		"an older generation, while the newer waits": {func(_ *agentapi.Pod, p *agentapi.Policy) {
			p.State, p.Realised.Generation, p.WaitingFor = agentapi.StatePending, 2, []string{"shop/g-1", "shop/g-2"}
		}, []string{"NetworkPolicy shop/web is in force there at generation 2; its newest generation is 3: it waits for shop/g-1, shop/g-2"}},
		"the same generation, in groups anew": {func(_ *agentapi.Pod, p *agentapi.Policy) {
			p.State, p.WaitingFor = agentapi.StatePending, []string{"shop/g-1"}
		}, []string{"NetworkPolicy shop/web is not in force there in its newest version: it waits for shop/g-1"}},
		"another of that name": {func(_ *agentapi.Pod, p *agentapi.Policy) { p.Realised.UID = "u0" },
			[]string{"NetworkPolicy shop/web is not in force there: an older policy of that name is"}},
		"a policy that is gone": {func(web *agentapi.Pod, _ *agentapi.Policy) {
			web.Ingress.Policies = []agentapi.PolicyRef{older, networkPolicy}
		}, []string{"NetworkPolicy shop/older is still in force there, and no longer selects the pod"}},
		"what is no NetworkPolicy": {func(web *agentapi.Pod, _ *agentapi.Policy) {
			web.Ingress.Policies = []agentapi.PolicyRef{manifest, networkPolicy}
		}, []string{"Manifest shop/kept-open is in force there too, and is not evaluated here"}},
	} {
		t.Run(name, func(t *testing.T) {
			answer := askShop(t, "192.0.2.1", "shop/web:80", says(tc.change))
			if diff := cmp.Diff(tc.want, answer.Flows[0].Halves[1].InForce.Differs); diff != "" || !answer.Allowed {
				t.Error(answer.Allowed, diff)
			}
		})
	}
}

func TestModeStrictRefusesWhereNothingIsolates(t *testing.T) {
	for name, tc := range map[string]struct {
		from, to string
		change   func(web *agentapi.Pod)
		allowed  bool
		reason   string // of the half of shop/web
	}{
		"egress of a pod that is isolated in ingress": {"shop/web", "192.0.2.1:443", func(web *agentapi.Pod) {
			web.Egress.Policies = []agentapi.PolicyRef{strictMode}
		}, false, ReasonStrict},
		"a policy is still there that has been deleted": {"shop/web", "192.0.2.1:443", func(web *agentapi.Pod) {
			web.Egress = agentapi.PodPolicy{Isolated: true, Policies: []agentapi.PolicyRef{older}}
		}, false, ReasonStrict},
		"in audit mode, which is shown": {"shop/web", "192.0.2.1:443", func(web *agentapi.Pod) {
			web.Mode, web.Egress.Policies = agentapi.ModeAudit, []agentapi.PolicyRef{strictMode}
		}, false, ReasonStrict},
		"another kind of policy keeps it open": {"shop/web", "192.0.2.1:443", func(web *agentapi.Pod) {
			web.Egress = agentapi.PodPolicy{Isolated: true, Policies: []agentapi.PolicyRef{manifest}}
		}, true, ReasonNotIsolated},
		"a rule allows it": {"192.0.2.1", "shop/web:80", func(*agentapi.Pod) {}, true, ReasonRule},
		"mode guarded": {"shop/web", "192.0.2.1:443", func(web *agentapi.Pod) {
			web.Mode = agentapi.ModeGuarded
		}, true, ReasonNotIsolated},
		"its own node": {"shop/web", "192.168.0.1:443", func(web *agentapi.Pod) {
			web.Egress.Policies = []agentapi.PolicyRef{strictMode}
		}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			answer := askShop(t, tc.from, tc.to, says(func(web *agentapi.Pod, _ *agentapi.Policy) {
				web.Mode = agentapi.ModeStrict
				tc.change(web)
			}))
			f := answer.Flows[0]
			reason := ""
			for _, h := range f.Halves {
				if h.Of == "shop/web" {
					reason = h.Reason
				}
			}
			if answer.Allowed != tc.allowed || f.Allowed != tc.allowed || reason != tc.reason {
				t.Errorf("allowed %v, its flow %v, %s", answer.Allowed, f.Allowed, reason)
			}
		})
	}
}

func TestModeStrictIsTold(t *testing.T) {
	var out bytes.Buffer
	write(&out, false, askShop(t, "shop/web", "192.0.2.1:443", says(func(web *agentapi.Pod, _ *agentapi.Policy) {
		web.Mode, web.Egress.Policies = agentapi.ModeStrict, []agentapi.PolicyRef{strictMode}
	})))
	if diff := cmp.Diff(`DENIED  shop/web (10.0.1.2) → 192.0.2.1 TCP 443

  ✘ Egress of shop/web: denied: no policy with policyType Egress selects it, and its node's mode, strict, isolates such pods
    on node n1: InForce, the same

  ✔ Ingress of 192.0.2.1: allowed: not a pod's own address, so no policy applies to it
`, out.String()); diff != "" {
		t.Error(diff)
	}
}

// Agents are asked once for each node, however many flows there are.
func TestEachAgentIsAskedOnce(t *testing.T) {
	n := 0
	ask := says(func(*agentapi.Pod, *agentapi.Policy) {})
	answer := askShop(t, "store/open", "shop/web:80", once(func(node string) (*said, error) {
		n++
		return ask(node)
	}))
	if n != 1 || answer.Flows[0].Halves[0].InForce.Differs[0] != "its agent does not list the pod" {
		t.Errorf("asked %d times; %+v", n, answer.Flows[0].Halves[0].InForce)
	}
}
