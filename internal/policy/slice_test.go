package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func inNamespace(namespace string, spec v1alpha1.PolicyEndpointSliceSpec) *v1alpha1.PolicyEndpointSlice {
	return &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "s1"}, Spec: spec}
}

// readParts reads all parts of a slice.
func readParts(pes *v1alpha1.PolicyEndpointSlice, shared string) ([]GroupPart, error) {
	s := ReadSlice(pes)
	if _, err := s.Groups(shared); err != nil {
		return nil, err
	}
	return s.Parts(func(GroupKey) bool { return true }), nil
}

func TestReadSlice(t *testing.T) {
	parts, err := readParts(inNamespace("shop", v1alpha1.PolicyEndpointSliceSpec{
		Groups:    []v1alpha1.GroupPart{{Name: "a", Slices: []string{"1", "2"}, SharedSlices: []string{"3"}}, {Name: "empty"}, {Name: "c"}},
		Addresses: []v1alpha1.CIDR{"10.0.0.1/32", "0.0.0.0/0", "2001:db8::/64", "10.0.0.3/32"},
		Classes:   []v1alpha1.AddressClass{{Groups: []int32{0, 2}, Count: 1}, {Groups: []int32{0}, Count: 2}, {Groups: []int32{2}, Count: 1}},
	}), "kidoban-system")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, p := range parts {
		got[p.Group.Name] = []string{}
		for _, class := range p.Members {
			for _, a := range class {
				got[p.Group.Name] = append(got[p.Group.Name], a.String())
			}
		}
	}
	want := map[string][]string{"a": {"10.0.0.1/32", "0.0.0.0/0", "2001:db8::/64"}, "empty": {}, "c": {"10.0.0.1/32", "10.0.0.3/32"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if !slices.Equal(parts[0].Slices, []string{"1", "2"}) || !slices.Equal(parts[0].SharedSlices, []string{"3"}) || parts[1].Lists() {
		t.Errorf("lists of slices: %+v and %+v", parts[0], parts[1])
	}
}

// A part is the same, whichever other parts are read with it.
func TestPartsOfSomeGroups(t *testing.T) {
	pes := inNamespace("shop", v1alpha1.PolicyEndpointSliceSpec{Groups: []v1alpha1.GroupPart{
		{Name: "a", Slices: []string{"s1", "s2"}, SharedSlices: []string{"t1"}}, {Name: "b"}, {Name: "c", Slices: []string{"s1"}}, {Name: "d"},
	}})
	for i := range 300 {
		class := v1alpha1.AddressClass{Count: 1}
		for g := range int32(3) {
			if i%8>>g&1 == 0 {
				class.Groups = append(class.Groups, g)
			}
		}
		pes.Spec.Addresses = append(pes.Spec.Addresses, v1alpha1.CIDR(fmt.Sprintf("10.0.%d.%d/32", i>>8, i&255)))
		pes.Spec.Classes = append(pes.Spec.Classes, class)
	}
	s := ReadSlice(pes)
	all := s.Parts(func(GroupKey) bool { return true })
	if len(all) != 4 {
		t.Fatalf("%d parts", len(all))
	}
	for i := range all {
		one := s.Parts(func(key GroupKey) bool { return key == all[i].Group })
		if len(one) != 1 || !reflect.DeepEqual(one[0], all[i]) {
			t.Errorf("group %s alone is %+v, and with the others %+v", all[i].Group, one, all[i])
		}
	}
	if none := s.Parts(func(GroupKey) bool { return false }); none != nil {
		t.Errorf("parts %+v", none)
	}
}

func TestReadSliceErrors(t *testing.T) {
	for want, edit := range map[string]func(*v1alpha1.PolicyEndpointSliceSpec){
		"spec.addresses[1]: \"ten\" is not a CIDR":                          func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Addresses[1] = "ten" },
		"spec.groups[1]: a second entry for group shop/a":                   func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Groups[1].Name = "a" },
		"spec.classes[0]: count is 0, and 2 addresses are left":             func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[0].Count = 0 },
		"spec.classes[1]: count is 2, and 1 addresses are left":             func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[1].Count = 2 },
		"spec.classes[1].groups[0]: the slice has no group with index 2":    func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[1].Groups[0] = 2 },
		"spec.classes[1].groups[0]: the slice has no group with index -1":   func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[1].Groups[0] = -1 },
		"spec.classes[0].groups[1]: the indexes must be in ascending order": func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[0].Groups[1] = 0 },
		"spec.classes: the last 1 addresses are in no class":                func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes = s.Classes[:1] },
		"spec.classes[0]: count is 2147483647, and 2 addresses are left":    func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Classes[0].Count = 1<<31 - 1 },
		"spec.classes[0].groups[1]: the slice has no group with index 1":    func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Groups = s.Groups[:1] },
	} {
		spec := &v1alpha1.PolicyEndpointSliceSpec{
			Groups:    []v1alpha1.GroupPart{{Name: "a"}, {Name: "b"}},
			Addresses: []v1alpha1.CIDR{"10.0.0.1/32", "10.0.0.2/32"},
			Classes:   []v1alpha1.AddressClass{{Groups: []int32{0, 1}, Count: 1}, {Groups: []int32{1}, Count: 1}},
		}
		edit(spec)
		if _, err := readParts(inNamespace("shop", *spec), "kidoban-system"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// A slice of kidoban's own namespace has shared groups and groups of all namespaces; any other has only those of its own.
func TestReadSliceNamespaces(t *testing.T) {
	part := func(namespace, name string, lists ...string) v1alpha1.GroupPart {
		return v1alpha1.GroupPart{Namespace: namespace, Name: name, Slices: lists}
	}
	for name, c := range map[string]struct {
		namespace string
		groups    []v1alpha1.GroupPart
		want      []GroupKey
		err       string
	}{
		"local groups": {
			namespace: "shop", groups: []v1alpha1.GroupPart{part("", "a", "s1"), part("", "b")},
			want: []GroupKey{{"shop", "a"}, {"shop", "b"}},
		},
		"shared groups": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("", "a", "s1"), part("", "b")},
			want: []GroupKey{{"kidoban-system", "a"}, {"kidoban-system", "b"}},
		},
		"groups of other namespaces beside shared ones": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("", "a"), part("shop", "a"), part("bank", "a")},
			want: []GroupKey{{"kidoban-system", "a"}, {"shop", "a"}, {"bank", "a"}},
		},
		"a local group of kidoban's own namespace": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("kidoban-system", "b", "s1")},
			want: []GroupKey{{"kidoban-system", "b"}},
		},
		"two groups of one name": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("", "a"), part("kidoban-system", "a")},
			err: "spec.groups[1]: a second entry for group kidoban-system/a",
		},
		"a group twice": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("shop", "a"), part("shop", "b"), part("shop", "a")},
			err: "spec.groups[2]: a second entry for group shop/a",
		},
		"another namespace's group": {
			namespace: "shop", groups: []v1alpha1.GroupPart{part("", "a"), part("bank", "a")},
			err: "spec.groups[1].namespace: is set, and only slices in namespace kidoban-system may have groups of other namespaces",
		},
		"a shared group, by name": {
			namespace: "shop", groups: []v1alpha1.GroupPart{part("kidoban-system", "a")},
			err: "spec.groups[0].namespace: is set",
		},
		"its own namespace by name": {
			namespace: "shop", groups: []v1alpha1.GroupPart{part("shop", "a")},
			err: "spec.groups[0].namespace: is set",
		},
		"the list of another namespace's group": {
			namespace: "kidoban-system", groups: []v1alpha1.GroupPart{part("shop", "a", "s1")},
			err: "spec.groups[0].slices: only a slice in namespace shop may list the slices of group shop/a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			parts, err := readParts(inNamespace(c.namespace, v1alpha1.PolicyEndpointSliceSpec{Groups: c.groups}), "kidoban-system")
			if c.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.err) {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []GroupKey
			for _, p := range parts {
				got = append(got, p.Group)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("groups %v, want %v", got, c.want)
			}
		})
	}
}
