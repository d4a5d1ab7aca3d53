package lab

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/command"
)

const pod = `
kind: Pod
apiVersion: v1
metadata: {name: a, namespace: shop}
spec: {containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.7}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: np, namespace: shop}
spec: {podSelector: {}, ingress: [{from: [`

func readOptions(t *testing.T, o *options, text string) (*input, error) {
	t.Helper()
	env := command.NewEnv()
	env.In = strings.NewReader(text)
	o.source, o.replicas = &command.Source{Files: []string{"-"}}, 2
	return o.read(t.Context(), env)
}

func addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out
}

// TestOutside: no two hosts have one address, which would take each other's packets, and none has an address that hosts cannot have.
func TestOutside(t *testing.T) {
	for name, tc := range map[string]struct {
		blocks        string
		outside       []string
		want, leftOut []netip.Addr
	}{
		"a pod's":           {"{ipBlock: {cidr: 10.0.0.7/32}}, {ipBlock: {cidr: 10.0.0.8/32}}", nil, addresses("192.0.2.1", "10.0.0.8"), nil},
		"the default":       {"{ipBlock: {cidr: 192.0.2.0/28}}, {ipBlock: {cidr: 192.0.2.0/24}}", nil, addresses("192.0.2.1"), nil},
		"given twice":       {"", []string{"198.51.100.1", "198.51.100.1", "::ffff:198.51.100.1"}, addresses("198.51.100.1"), nil},
		"loopback":          {"{ipBlock: {cidr: 127.0.0.0/8}}", nil, addresses("192.0.2.1"), addresses("127.0.0.1")},
		"as excepts":        {"{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/8, 224.0.0.0/4, 240.0.0.0/8, 255.255.255.255/32]}}", nil, addresses("192.0.2.1"), addresses("0.0.0.1", "240.0.0.1", "255.255.255.255")},
		"the gateway":       {"{ipBlock: {cidr: 169.254.1.1/32}}, {ipBlock: {cidr: 169.254.169.254/32}}", nil, addresses("192.0.2.1", "169.254.169.254"), addresses("169.254.1.1")},
		"of the other kind": {"{ipBlock: {cidr: '::1/128'}}, {ipBlock: {cidr: 'ff02::/16'}}, {ipBlock: {cidr: 'fe80::/10'}}, {ipBlock: {cidr: '2001:db8:7::/48'}}", nil, addresses("192.0.2.1", "2001:db8:7::1"), addresses("::1", "fe80::1", "ff02::1")},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := readOptions(t, &options{outside: tc.outside}, pod+tc.blocks+"]}]}\n")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(in.matrix.Outside, tc.want) || !slices.Equal(in.leftOut, tc.leftOut) {
				t.Errorf("%v, want %v; left out %v, want %v", in.matrix.Outside, tc.want, in.leftOut, tc.leftOut)
			}
		})
	}
}

func TestWhatCannotBeTried(t *testing.T) {
	for name, tc := range map[string]struct {
		options
		rules, want string
	}{
		"no such namespace":        {options{namespaces: []string{"shop", "nosuch"}}, "", "-n nosuch"},
		"a namespace without pods": {options{namespaces: []string{"lab"}}, "]}]}\n---\n{kind: Namespace, apiVersion: v1, metadata: {name: lab}}\n---\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {name: b, namespace: lab}\nspec: {podSelector: {}, ingress: [{from: [", "-n lab"},
		"outside is a pod":         {options{outside: []string{"10.0.0.7"}}, "", "is the address of pod shop/a"},
		"outside is no host":       {options{outside: []string{"224.0.0.1"}}, "", "cannot be the address of a host"},
		"outside is no address":    {options{outside: []string{"10.0.0"}}, "", "not a valid address"},
		"a protocol":               {options{}, "]}, {ports: [{port: 1, protocol: Tcp}], from: [", "protocol"},
		"an end alone":             {options{}, "]}, {ports: [{endPort: 1}], from: [", "endPort"},
		"a block":                  {options{}, "{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}", "except"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readOptions(t, &tc.options, pod+tc.rules+"]}]}\n"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

// TestAssumed: cells that an ipBlock decides by the address of a pod from a template, which is not known, are marked; with --pod-cidr they are not.
func TestAssumed(t *testing.T) {
	const text = `
kind: Deployment
apiVersion: apps/v1
metadata: {name: api, namespace: shop}
spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}}
---
kind: Pod
apiVersion: v1
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {containers: [{name: c}]}
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: np, namespace: shop}
spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}]}]}
`
	in, err := readOptions(t, &options{}, text)
	if err != nil {
		t.Fatal(err)
	}
	if len(in.assumed) != 1 {
		t.Errorf("%v", in.assumed)
	}
}
