package compiler

import (
	"reflect"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// Whatever field of a policy changes, its key does.
func TestEveryFieldIsEncoded(t *testing.T) {
	full := func() *policy.Policy {
		p := ingress("p", policy.Rule{
			Origin: []int32{1}, Peers: policy.ListPeers(policy.Peer{Group: g1}), Ports: []policy.PortRange{tcp(80, 81)},
		})
		p.Rules[policy.Egress] = []policy.Rule{{}}
		return p
	}
	encode := func(p *policy.Policy) string { return new(encoder).key(p) }
	same := encode(full())
	if encode(full()) != same {
		t.Fatal("two keys for the same policy")
	}
	seen := map[string]string{same: "nothing"}
	changes := 0
	// visit changes each leaf of a value in turn, in a policy of its own
	var visit func(path string, of func(*policy.Policy) reflect.Value)
	visit = func(path string, of func(*policy.Policy) reflect.Value) {
		v := of(full())
		check := func(change func(reflect.Value)) {
			p := full()
			change(of(p))
			key := encode(p)
			if other, ok := seen[key]; ok {
				t.Errorf("a change of %s has the key of a change of %s", path, other)
			}
			seen[key] = path
			changes++
		}
		switch {
		case v.Type() == reflect.TypeFor[policy.Peers]():
			for _, peers := range [][]policy.Peer{
				{{Group: g2}}, {{Group: g1}, {Group: g1}}, {{CIDR: everywhere}}, {{CIDR: everywhere, Except: prefixes("10.0.0.0/8")}}, {{DomainNames: []string{"a.example"}}},
			} {
				check(func(v reflect.Value) { v.Set(reflect.ValueOf(policy.ListPeers(peers...))) })
			}
			return
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				visit(path+"."+v.Type().Field(i).Name, func(p *policy.Policy) reflect.Value { return of(p).Field(i) })
			}
		case v.Kind() == reflect.Array:
			for i := range v.Len() {
				visit(path+"[]", func(p *policy.Policy) reflect.Value { return of(p).Index(i) })
			}
		case v.Kind() == reflect.Slice:
			if v.Len() == 0 {
				check(func(v reflect.Value) { v.Set(reflect.MakeSlice(v.Type(), 3, 3)) })
				return
			}
			check(func(v reflect.Value) { v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem()))) })
			visit(path+"[]", func(p *policy.Policy) reflect.Value { return of(p).Index(0) })
		case v.Kind() == reflect.Bool:
			check(func(v reflect.Value) { v.SetBool(!v.Bool()) })
		case v.CanInt():
			check(func(v reflect.Value) { v.SetInt(v.Int() + 1) })
		case v.CanUint():
			check(func(v reflect.Value) { v.SetUint(v.Uint() + 1) })
		case v.Kind() == reflect.String:
			check(func(v reflect.Value) { v.SetString(v.String() + "x") })
		default:
			t.Errorf("%s: a %v is not covered by this test", path, v.Type())
		}
	}
	visit("Policy", func(p *policy.Policy) reflect.Value { return reflect.ValueOf(p).Elem() })
	t.Logf("%d changes", changes)
}
