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

// parseSlice reads a slice from a line such as "s1 g=s1,s2+t1 h | 2:g,h 3:h": the name, the groups with their lists of slices (after a plus
// those of the shared namespace), and the last bytes of addresses with their groups. A name that begins with t is that of a slice in the shared
// namespace, where "shop/g" is a group of namespace shop. Nothing after the name: the slice is gone.
func parseSlice(t *testing.T, line string) (pes *v1alpha1.PolicyEndpointSlice, gone bool) {
	t.Helper()
	head, tail, _ := strings.Cut(line, "|")
	fields := strings.Fields(head)
	pes = &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fields[0]}}
	if strings.HasPrefix(fields[0], "t") {
		pes.Namespace = shared
	}
	index := map[string]int32{}
	for i, field := range fields[1:] {
		group, list, has := strings.Cut(field, "=")
		part := v1alpha1.GroupPart{Name: group}
		if namespace, name, has := strings.Cut(group, "/"); has {
			part.Namespace, part.Name = namespace, name
		}
		if has {
			own, other, _ := strings.Cut(list, "+")
			part.Slices = strings.Split(own, ",")
			if other != "" {
				part.SharedSlices = strings.Split(other, ",")
			}
		}
		pes.Spec.Groups = append(pes.Spec.Groups, part)
		index[group] = int32(i)
	}
	for _, field := range strings.Fields(tail) {
		number, groups, _ := strings.Cut(field, ":")
		class := v1alpha1.AddressClass{Count: 1}
		for _, g := range strings.Split(groups, ",") {
			class.Groups = append(class.Groups, index[g])
		}
		slices.Sort(class.Groups)
		pes.Spec.Addresses = append(pes.Spec.Addresses, v1alpha1.CIDR("10.0.0."+number+"/32"))
		pes.Spec.Classes = append(pes.Spec.Classes, class)
	}
	return pes, len(fields) == 1
}

// arrive takes in slices as parseSlice reads them.
func (s story) arrive(lines ...string) {
	s.Helper()
	for _, line := range lines {
		pes, gone := parseSlice(s.T, line)
		if gone {
			s.DeleteSlice(start, types.NamespacedName{Namespace: pes.Namespace, Name: pes.Name})
			continue
		}
		if err := s.SetSlice(start, policy.ReadSlice(pes)); err != nil {
			s.Fatal(err)
		}
	}
}

// withGroups is a story of three pods, each with a policy that allows the members of one group: pods g and h, at 10.0.0.100 and 10.0.0.101, of
// local groups, and pod x, at 10.0.0.102, of a shared one.
func withGroups(t *testing.T) story {
	s := newStory(t)
	s.pod("g", "10.0.0.100")
	s.pod("h", "10.0.0.101")
	s.endpoint("g", map[string]string{"app": "g"}, fromGroup("g"))
	s.endpoint("h", map[string]string{"app": "h"}, fromGroup("h"))
	s.pod("x", "10.0.0.102")
	s.endpoint("x", map[string]string{"app": "x"}, fromSharedGroup("x"))
	return s
}

// members are those of the addresses 10.0.0.1 to 10.0.0.9 that are in a group of which the policy is in force: as "g:1 g:2 h:1".
func (s story) members() (out []string) {
	for i, group := range []string{"g", "h", "x"} {
		if s.policies[types.NamespacedName{Namespace: "shop", Name: group}].active == nil {
			continue
		}
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
		"the lists move": {before: []string{"s1 g=s1,s2 h=s1 | 1:g,h", "s2 g | 2:g"}, after: []string{"s1 g h=s1 | 1:g,h", "s2 g=s1,s2 | 2:g"}},
		"a list grows":   {before: []string{"s1 g=s1,s2 h=s1 | 1:g,h", "s2 g | 2:g"}, after: []string{"s1 g=s1,s2,s3 h=s1 | 1:g,h", "s3 g | 3:g"}},
		"a list shrinks": {before: []string{"s1 g=s1,s2 h=s1,s2 | 1:g,h", "s2 g h | 2:h"}, after: []string{"s1 g=s1 h=s1,s2 | 1:g,h", "s2 h | 2:h"}},
		"a pod's first shared group": {
			before: []string{"s1 g=s1 | 1:g 2:g"},
			after:  []string{"t1 x=t1 shop/g | 1:x,shop/g", "s1 g=s1+t1 | 2:g"},
			gain:   "t1", loss: "s1",
		},
		"a pod's first shared group, and its slice keeps only the list": {
			before: []string{"s1 g=s1 | 1:g", "t1 x=t1 | 2:x"},
			after:  []string{"t1 x=t1 shop/g | 2:x 1:x,shop/g", "s1 g=s1+t1"},
			gain:   "t1", loss: "s1",
		},
		"a pod's last shared group": {
			before: []string{"t1 x=t1 shop/g | 1:x,shop/g 3:x", "s1 g=s1+t1 h=s1 | 2:g,h"},
			after:  []string{"s1 g=s1 h=s1 | 1:g 2:g,h", "t1 x=t1 | 3:x"},
			gain:   "s1", loss: "t1",
		},
		"a pod's last shared group, and another slice has the list": {
			before: []string{"t1 x=t1 shop/g | 1:x,shop/g 3:x,shop/g", "s1 g | 4:g", "s2 g=s1,s2+t1 | 2:g"},
			after:  []string{"s1 g | 1:g 4:g", "t1 x=t1 shop/g | 3:x,shop/g"},
			gain:   "s1", loss: "t1",
		},
		"slices of the shared namespace are merged": {
			before: []string{"t1 x=t1,t2 shop/g | 1:x,shop/g", "t2 x shop/g shop/h | 2:x,shop/g 3:x,shop/h", "s1 g=s1+t1,t2 h=s1+t2"},
			after:  []string{"t1 x=t1 shop/g shop/h | 1:x,shop/g 2:x,shop/g 3:x,shop/h", "t2", "s1 g=s1+t1 h=s1+t1"},
			gain:   "t1", loss: "t2",
		},
		"the list moves, beside shared slices": {
			before: []string{"s1 g=s1,s2+t1 | 1:g", "s2 g | 2:g", "t1 x=t1 shop/g | 3:x,shop/g"},
			after:  []string{"s1 g | 1:g", "s2 g=s1,s2+t1 | 2:g", "t1 x=t1 shop/g | 3:x,shop/g 4:shop/g"},
		},
		"classes change":   {before: []string{"s1 g=s1 h=s1 | 1:g,h 2:g 3:h"}, after: []string{"s1 h=s1 g=s1 | 1:h 2:h,g 4:g"}},
		"a group is empty": {before: []string{"s1 g=s1 h=s1 | 1:g,h"}, after: []string{"s1 g=s1 h=s1 | 1:h"}},
	} {
		t.Run(name, func(t *testing.T) {
			// what a new agent has that receives the objects once
			finally := withGroups(t)
			finally.arrive(c.after...)
			for _, line := range c.before {
				if was, _ := parseSlice(t, line); !slices.ContainsFunc(c.after, func(line string) bool { is, _ := parseSlice(t, line); return is.Name == was.Name }) {
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

// A local group is complete when its list and all that it lists are here, from both namespaces and in whatever order.
func TestAGroupInTwoNamespacesIsCompleteInEveryOrder(t *testing.T) {
	for _, order := range permutations([]string{"s1 g=s1,s2+t1,t2", "s2 g h=s2 | 2:g,h", "t1 x=t1,t2 shop/g | 1:x,shop/g", "t2 x shop/g shop/h | 3:shop/g 4:x,shop/h"}) {
		s := withGroups(t)
		for i, line := range order {
			if g := s.groups[policy.GroupKey{Namespace: "shop", Name: "g"}]; g != nil && g.completed {
				t.Errorf("order %q: complete after %d slices", order, i)
			}
			s.arrive(line)
		}
		if got := s.members(); !slices.Equal(got, []string{"g:1", "g:2", "g:3", "h:2", "h:4", "x:1", "x:4"}) {
			t.Errorf("order %q: members %v", order, got)
		}
	}
}

// What a namespace's own slices have adds members to its own groups only, whatever names they have.
func TestSlicesOfANamespaceAddMembersToItsOwnGroupsOnly(t *testing.T) {
	s := withGroups(t)
	s.arrive("t1 x=t1 shop/g | 1:x,shop/g", "s1 g=s1+t1 h=s1")
	want := s.members()
	for _, line := range []string{"s2 x=s2 | 9:x", "s2 kidoban-system/x=s2 | 9:kidoban-system/x", "s2 shop/g | 9:shop/g", "t1 bank/g=t1 | 9:bank/g"} {
		pes, _ := parseSlice(t, line)
		for _, pes.Namespace = range []string{pes.Namespace, "bank"} {
			if err := s.SetSlice(start, policy.ReadSlice(pes)); (err == nil) != (pes.Spec.Groups[0].Namespace == "") {
				t.Errorf("%s in namespace %s: error %v", line, pes.Namespace, err)
			}
		}
		if got := s.members(); !slices.Equal(got, want) {
			t.Errorf("%s: members %v, want %v", line, got, want)
		}
	}
}

// What is read of slices follows what policies use: nothing of a group that none uses, and all of it as soon as one does.
func TestOnlyGroupsInUseAreRead(t *testing.T) {
	s := newStory(t)
	g, h := policy.GroupKey{Namespace: "shop", Name: "g"}, policy.GroupKey{Namespace: "shop", Name: "h"}
	web := map[string]string{"app": "web"}
	expect := func(when string, want ...policy.GroupKey) {
		t.Helper()
		for key, group := range s.groups {
			if isRead := group.parts != nil; isRead != slices.Contains(want, key) {
				t.Errorf("%s: group %s is read: %v", when, key, isRead)
			}
		}
	}
	s.pod("web", "10.0.0.100")
	s.arrive("s1 g=s1+t1 h | 1:g,h 2:h", "t1 shop/g shop/h x=t1 | 3:shop/g,x 4:shop/h")
	expect("without a policy")
	s.endpoint("allow", web, fromGroup("g"))
	expect("a policy", g)
	s.allowed("10.0.0.1", "10.0.0.100", 80)
	s.denied("10.0.0.2", "10.0.0.100", 80)
	s.allowed("10.0.0.3", "10.0.0.100", 80)
	s.endpoint("allow", web, fromGroup("h"))
	expect("a version that waits for another group", g, h)
	s.allowed("10.0.0.3", "10.0.0.100", 80)
	s.arrive("s1 h=s1+t1 g=s1+t1 | 1:g,h 2:h") // which completes h and releases g
	expect("the version is in force", h)
	s.denied("10.0.0.3", "10.0.0.100", 80)
	s.allowed("10.0.0.4", "10.0.0.100", 80)
	s.arrive("s1 h=s1+t1 g=s1+t1 | 5:g 6:h")
	s.endpoint("allow", web, fromGroup("g"), fromGroup("h"))
	expect("a version with both", g, h)
	s.allowed("10.0.0.5", "10.0.0.100", 80)
	s.allowed("10.0.0.6", "10.0.0.100", 80)
	s.denied("10.0.0.1", "10.0.0.100", 80)
	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "allow"})
	s.removeDeleted(start.Add(DeletionPatience))
	expect("the policy is gone")
	if len(s.wanted)+len(s.groupUsers) > 0 {
		t.Errorf("references %v, %v", s.wanted, s.groupUsers)
	}
	s.arrive("s1", "t1")
	if len(s.groups)+len(s.slices) > 0 {
		t.Errorf("groups %v and slices %v are left", s.groups, s.slices)
	}
}

// A slice that gets one group complete and does not have another any more is one event: a policy that waits for both still waits.
func TestAGroupThatGoesIsNotCompleteWhenAnotherComes(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.100")
	s.endpoint("allow", everyPod, fromGroup("g"), fromGroup("h"))
	s.arrive("s1 g=s1 | 1:g", "s1 h=s1 | 2:h")
	s.allowed("10.0.0.9", "10.0.0.100", 80) // not in force
	s.arrive("s2 g=s2 | 3:g")
	s.denied("10.0.0.1", "10.0.0.100", 80)
	s.allowed("10.0.0.2", "10.0.0.100", 80)
	s.allowed("10.0.0.3", "10.0.0.100", 80)
}

// A namespace that is forgotten and wanted again: its groups are complete when its own slices are here again.
func TestAForgottenNamespaceLeavesSharedSlices(t *testing.T) {
	s := withGroups(t)
	s.arrive("t1 x=t1 shop/g | 1:x,shop/g", "s1 g=s1+t1 h=s1 | 2:g,h")
	s.ForgetNamespace(start, "shop")
	s.namespaces["shop"] = newNamespace()
	s.NamespaceSynced(start, "shop")
	s.pod("g", "10.0.0.100")
	s.endpoint("g", map[string]string{"app": "g"}, fromGroup("g"))
	s.allowed("10.0.0.9", "10.0.0.100", 80) // not in force
	s.arrive("s1 g=s1+t1 h=s1 | 3:g,h")
	s.allowed("10.0.0.1", "10.0.0.100", 80)
	s.denied("10.0.0.2", "10.0.0.100", 80)
	s.allowed("10.0.0.3", "10.0.0.100", 80)
}

func TestAnUnreadableSliceKeepsItsPreviousVersion(t *testing.T) {
	s := withGroups(t)
	s.arrive("s1 g=s1 h=s1 | 1:g,h 2:h")
	want := s.members()
	for field, edit := range map[string]func(*v1alpha1.PolicyEndpointSliceSpec){
		"spec.addresses[0]":         func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Addresses[0] = "ten" },
		"spec.groups[1]":            func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Groups[1].Name = "g" },
		"spec.groups[0].namespace":  func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Groups[0].Namespace = "shop" },
		"spec.classes[0].groups[0]": func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Classes[0].Groups[0] = 2 },
		"spec.classes":              func(spec *v1alpha1.PolicyEndpointSliceSpec) { spec.Classes = spec.Classes[:1] },
	} {
		pes, _ := parseSlice(t, "s1 g=s1 h=s1 | 3:g 4:h")
		edit(&pes.Spec)
		err := s.SetSlice(start, policy.ReadSlice(pes))
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
