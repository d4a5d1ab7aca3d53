package controller

import (
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestNamespacesTakeTurns(t *testing.T) {
	q := &fairQueue{}
	push := func(kind requestKind, namespace, name, cause string) {
		q.Push(request{kind, types.NamespacedName{Namespace: namespace, Name: name}, cause})
	}
	push(status, "shop", "status", "")
	for i := range 3 {
		push(endpoint, "storm", fmt.Sprint("e", i), "")
		push(sliceSet, "kidoban-system", fmt.Sprint("s", i), "storm")
	}
	push(endpoint, "shop", "db", "")
	push(sliceSet, "kidoban-system", "s1", "shop") // also for storm
	push(sliceSet, "kidoban-system", "s9", "")
	var got []string
	for q.Len() > 0 {
		r := q.Pop()
		got = append(got, r.causedBy()+":"+r.name.Name)
	}
	want := "storm:e0 shop:db kidoban-system:s9 storm:s0 shop:s1 storm:e1 storm:s1 storm:e2 storm:s2 shop:status"
	if strings.Join(got, " ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestAStormDoesNotHoldStatusesForever(t *testing.T) {
	q := &fairQueue{}
	q.Push(request{kind: status})
	for n := 1; ; n++ {
		q.Push(request{kind: endpoint})
		if q.Pop().kind == status {
			if n != statusTurn {
				t.Errorf("the status came after %d requests", n)
			}
			return
		}
		if n > statusTurn {
			t.Fatal("the status did not come")
		}
	}
}
