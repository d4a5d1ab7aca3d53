package policy

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func TestFromSlice(t *testing.T) {
	parts, err := FromSlice(&v1alpha1.PolicyEndpointSliceSpec{
		Groups:    []v1alpha1.GroupPart{{Name: "a", Slices: []string{"1", "2"}}, {Name: "empty"}, {Name: "c"}},
		Addresses: []v1alpha1.CIDR{"10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128", "10.0.0.3/32"},
		Classes:   []v1alpha1.AddressClass{{Groups: []int32{0, 2}, Count: 1}, {Groups: []int32{0}, Count: 2}, {Groups: []int32{2}, Count: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, p := range parts {
		got[p.Group] = []string{}
		for _, class := range p.Members {
			for _, a := range class {
				got[p.Group] = append(got[p.Group], a.String())
			}
		}
	}
	want := map[string][]string{"a": {"10.0.0.1/32", "10.0.0.2/32", "2001:db8::1/128"}, "empty": {}, "c": {"10.0.0.1/32", "10.0.0.3/32"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	if !slices.Equal(parts[0].Slices, []string{"1", "2"}) || parts[1].Slices != nil {
		t.Errorf("lists of slices: %v and %v", parts[0].Slices, parts[1].Slices)
	}
}

func TestFromSliceErrors(t *testing.T) {
	for want, edit := range map[string]func(*v1alpha1.PolicyEndpointSliceSpec){
		"spec.addresses[1]: \"ten\" is not a CIDR":                          func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Addresses[1] = "ten" },
		"spec.groups[1]: a second entry for group a":                        func(s *v1alpha1.PolicyEndpointSliceSpec) { s.Groups[1].Name = "a" },
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
		if _, err := FromSlice(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
