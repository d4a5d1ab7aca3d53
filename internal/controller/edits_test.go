package controller

import (
	"fmt"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/resolver"
)

func TestEditsTakeTurnsByTheTimeTheyTook(t *testing.T) {
	e := newEdits()
	add := func(namespace, name string) {
		e.add(types.NamespacedName{Namespace: namespace, Name: name}, resolver.NetworkPolicy(&networkingv1.NetworkPolicy{}))
	}
	takes := func(want string, d time.Duration) {
		t.Helper()
		name, np, ok := e.take()
		if got := name.String(); !ok || np == nil || got != want {
			t.Fatalf("taken is %s, %v, %t, want %s", got, np, ok, want)
		}
		e.took(name.Namespace, d)
	}
	for i := range 5 {
		add("hostile", fmt.Sprint(i))
	}
	takes("hostile/0", time.Second)
	add("shop", "a")
	add("shop", "b")
	add("bank", "a")
	takes2 := map[string]bool{}
	for range 2 { // both have had no turn
		name, _, _ := e.take()
		takes2[name.String()] = true
		e.took(name.Namespace, time.Millisecond)
	}
	if !takes2["shop/a"] || !takes2["bank/a"] {
		t.Fatalf("taken are %v", takes2)
	}
	takes("shop/b", time.Millisecond) // before the namespace that owes a second
	takes("hostile/1", time.Second)
	add("hostile", "2") // in the place that it has
	add("bank", "b")
	takes("bank/b", time.Millisecond)
	for _, want := range []string{"hostile/2", "hostile/3", "hostile/4"} {
		takes(want, time.Second)
	}
	if name, _, ok := e.take(); ok {
		t.Errorf("%s is left", name)
	}
	// Who has used less than others for a long time has no credit from that.
	add("shop", "c")
	takes("shop/c", time.Second)
	add("shop", "d")
	add("new", "a")
	takes("new/a", 2*time.Second)
	takes("shop/d", time.Second)
}

func TestOnlyTheLastVersionOfAPolicyIsResolved(t *testing.T) {
	e := newEdits()
	name := types.NamespacedName{Namespace: "shop", Name: "web"}
	e.add(name, resolver.NetworkPolicy(&networkingv1.NetworkPolicy{}))
	last := resolver.NetworkPolicy(&networkingv1.NetworkPolicy{})
	e.add(name, last)
	if _, np, _ := e.take(); np != last {
		t.Error("an earlier version was taken")
	}
	e.add(name, last)
	e.add(name, nil)
	if got, np, ok := e.take(); !ok || np != nil || got != name {
		t.Errorf("the deletion was lost: %v, %v, %t", got, np, ok)
	}
	if _, _, ok := e.take(); ok || len(e.namespaces) > 0 {
		t.Errorf("there is one more, or %d namespaces are remembered", len(e.namespaces))
	}
}

func TestEditsBeforeTheStartAreTakenTogether(t *testing.T) {
	e := newEdits()
	for i := range 3 {
		e.add(types.NamespacedName{Namespace: fmt.Sprint(i), Name: "web"}, nil)
	}
	if all := e.begin(); len(all) != 3 {
		t.Errorf("there are %d", len(all))
	}
	if _, _, ok := e.take(); ok {
		t.Error("one is left")
	}
}
