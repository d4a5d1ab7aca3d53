package node

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// parseSlice reads a slice from a line such as "s1 g=s1,s2 h | 2:g,h 3:h": the name, the groups with their lists of slices, and the last bytes
// of addresses with their groups. Nothing after the name: the slice is gone.
func parseSlice(t *testing.T, line string) (name string, spec *v1alpha1.PolicyEndpointSliceSpec) {
	t.Helper()
	head, tail, _ := strings.Cut(line, "|")
	fields := strings.Fields(head)
	if len(fields) == 1 {
		return fields[0], nil
	}
	spec = &v1alpha1.PolicyEndpointSliceSpec{}
	index := map[string]int32{}
	for i, field := range fields[1:] {
		group, list, has := strings.Cut(field, "=")
		part := v1alpha1.GroupPart{Name: group}
		if has {
			part.Slices = strings.Split(list, ",")
		}
		spec.Groups = append(spec.Groups, part)
		index[group] = int32(i)
	}
	for _, field := range strings.Fields(tail) {
		number, groups, _ := strings.Cut(field, ":")
		class := v1alpha1.AddressClass{Count: 1}
		for _, g := range strings.Split(groups, ",") {
			class.Groups = append(class.Groups, index[g])
		}
		slices.Sort(class.Groups)
		spec.Addresses = append(spec.Addresses, v1alpha1.CIDR("10.0.0."+number+"/32"))
		spec.Classes = append(spec.Classes, class)
	}
	return fields[0], spec
}

// arrive takes in slices as parseSlice reads them.
func (s story) arrive(lines ...string) {
	s.Helper()
	for _, line := range lines {
		name, spec := parseSlice(s.T, line)
		if spec == nil {
			s.DeleteSlice(start, types.NamespacedName{Namespace: "shop", Name: name})
			continue
		}
		if err := s.SetSlice(start, &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Spec: *spec}); err != nil {
			s.Fatal(err)
		}
	}
}

// withGroups is a story of two pods, each with a policy that allows the members of one group: pod g at 10.0.0.100, and pod h at 10.0.0.101.
func withGroups(t *testing.T) story {
	s := newStory(t)
	s.pod("g", "10.0.0.100")
	s.pod("h", "10.0.0.101")
	s.endpoint("g", map[string]string{"app": "g"}, fromGroup("g"))
	s.endpoint("h", map[string]string{"app": "h"}, fromGroup("h"))
	return s
}

// members are those of the addresses 10.0.0.1 to 10.0.0.9 that are in a group: as "g:1 g:2 h:1".
func (s story) members() (out []string) {
	for i, group := range []string{"g", "h"} {
		for n := range 9 {
			if s.decide(fmt.Sprint("10.0.0.", n+1), fmt.Sprint("10.0.0.", 100+i), 80) == policy.Allow {
				out = append(out, fmt.Sprint(group, ":", n+1))
			}
		}
	}
	return out
}

func TestAnAddressThatStaysIsNeverMissing(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []string
		// gain is written before loss: the new slice of addresses that move, and the old one that loses them. An agent that lists the slices
		// anew receives deletions last.
		gain, loss string
	}{
		"a slice is merged into the one with the lists": {
			before: []string{"s1 g=s1,s2 h=s1,s2 | 1:g,h 2:g", "s2 g h | 3:g 4:h 5:g,h"},
			after:  []string{"s1 g=s1 h=s1 | 1:g,h 2:g 3:g 4:h 5:g,h", "s2"},
			gain:   "s1", loss: "s2",
		},
		"a slice is merged into another, and a third has the lists": {
			before: []string{"s1 g h | 1:g,h", "s2 g h | 2:g 3:g,h", "s3 g=s1,s2,s3 h=s1,s2,s3 | 4:h"},
			after:  []string{"s1 g h | 1:g,h 2:g 3:g,h", "s2", "s3 g=s1,s3 h=s1,s3 | 4:h"},
			gain:   "s1", loss: "s2",
		},
		"a slice with a list is merged into another": {
			before: []string{"s1 g h=s1,s2 | 1:g,h", "s2 g=s1,s2,s3 h | 2:g 3:g,h", "s3 g | 4:g"},
			after:  []string{"s1 g=s1,s3 h=s1 | 1:g,h 2:g 3:g,h", "s2", "s3 g | 4:g"},
			gain:   "s1", loss: "s2",
		},
		"two slices are merged while pods come and go": {
			before: []string{"s1 g=s1,s2,s3 | 1:g 6:g", "s2 g h=s2 | 2:g 3:g,h 7:h", "s3 g | 4:g"},
			after:  []string{"s1 g=s1,s4 h=s1 | 1:g 2:g 3:g,h 8:h", "s2", "s3", "s4 g | 4:g 9:g"},
			gain:   "s1", loss: "s2",
		},
		"the lists move":   {before: []string{"s1 g=s1,s2 h=s1 | 1:g,h", "s2 g | 2:g"}, after: []string{"s1 g h=s1 | 1:g,h", "s2 g=s1,s2 | 2:g"}},
		"a list grows":     {before: []string{"s1 g=s1,s2 h=s1 | 1:g,h", "s2 g | 2:g"}, after: []string{"s1 g=s1,s2,s3 h=s1 | 1:g,h", "s3 g | 3:g"}},
		"a list shrinks":   {before: []string{"s1 g=s1,s2 h=s1,s2 | 1:g,h", "s2 g h | 2:h"}, after: []string{"s1 g=s1 h=s1,s2 | 1:g,h", "s2 h | 2:h"}},
		"classes change":   {before: []string{"s1 g=s1 h=s1 | 1:g,h 2:g 3:h"}, after: []string{"s1 h=s1 g=s1 | 1:h 2:h,g 4:g"}},
		"a group is empty": {before: []string{"s1 g=s1 h=s1 | 1:g,h"}, after: []string{"s1 g=s1 h=s1 | 1:h"}},
	} {
		t.Run(name, func(t *testing.T) {
			// what a new agent has that receives the objects once
			finally := withGroups(t)
			finally.arrive(c.after...)
			for _, line := range c.before {
				if was, _ := parseSlice(t, line); !slices.ContainsFunc(c.after, func(line string) bool { is, _ := parseSlice(t, line); return is == was }) {
					finally.arrive(line)
				}
			}
			end := finally.members()
			for _, order := range permutations(c.after) {
				gain := slices.IndexFunc(order, func(line string) bool { return strings.HasPrefix(line, c.gain+" ") })
				if c.loss != "" && slices.Index(order, c.loss) < gain {
					continue
				}
				for _, times := range []int{1, 2} {
					s := withGroups(t)
					s.arrive(c.before...)
					before := s.members()
					for i, line := range order {
						s.arrive(slices.Repeat([]string{line}, times)...)
						now := s.members()
						for _, m := range before {
							if slices.Contains(end, m) && !slices.Contains(now, m) {
								t.Errorf("order %q: after event %d, %s is missing", order, i, m)
							}
						}
						if i == len(order)-1 && !slices.Equal(now, end) {
							t.Errorf("order %q: the members are %v, not %v", order, now, end)
						}
					}
				}
			}
		})
	}
}

// A group that its slices never had before is complete in whatever order they arrive, and not earlier.
func TestANewGroupIsCompleteInEveryOrder(t *testing.T) {
	for _, order := range permutations([]string{"s1 h=s1 g | 1:g,h", "s2 g=s1,s2,s3 | 2:g", "s3 g"}) {
		s := withGroups(t)
		for i, line := range order {
			if g := s.groups[policy.GroupKey{Namespace: "shop", Name: "g"}]; g != nil && g.completed {
				t.Errorf("order %q: complete after %d slices", order, i)
			}
			s.arrive(line)
		}
		if got := s.members(); !slices.Equal(got, []string{"g:1", "g:2", "h:1"}) {
			t.Errorf("order %q: members %v", order, got)
		}
	}
}

func TestAnUnreadableSliceKeepsItsPreviousVersion(t *testing.T) {
	s := withGroups(t)
	s.arrive("s1 g=s1 h=s1 | 1:g,h 2:h")
	want := s.members()
	for field, edit := range map[string]func(*v1alpha1.PolicyEndpointSliceSpec){
		"spec.addresses[0]":         func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Addresses[0] = "ten" },
		"spec.groups[1]":            func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Groups[1].Name = "g" },
		"spec.classes[0].groups[0]": func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Classes[0].Groups[0] = 2 },
		"spec.classes":              func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Classes = spec.Classes[:1] },
	} {
		_, spec := parseSlice(t, "s1 g=s1 h=s1 | 3:g 4:h")
		edit(spec)
		err := s.SetSlice(start, &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s1"}, Spec: *spec})
		if err == nil || !strings.HasPrefix(err.Error(), field+":") {
			t.Errorf("error %v, want one about %s", err, field)
		}
		if got := s.members(); !slices.Equal(got, want) {
			t.Errorf("%s: members %v, want %v", field, got, want)
		}
	}
	s.arrive("s1")
	if got := s.members(); !slices.Equal(got, want) {
		t.Errorf("members %v after the deletion: the groups are incomplete and keep theirs", got)
	}
}

func permutations(of []string) [][]string {
	if len(of) < 2 {
		return [][]string{of}
	}
	var out [][]string
	for i := range of {
		for _, rest := range permutations(slices.Delete(slices.Clone(of), i, i+1)) {
			out = append(out, append([]string{of[i]}, rest...))
		}
	}
	return out
}
