package node

import (
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestWhetherGroupsHaveAnAddress(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	used, unused := policy.GroupKey{Namespace: "shop", Name: "used"}, policy.GroupKey{Namespace: "shop", Name: "unused"}
	has := func(groups, left []policy.GroupKey) bool {
		return s.HasMembers([]netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("2001:db8::2")}, groups, left)
	}
	for _, tc := range []struct {
		name      string
		addresses []v1alpha1.CIDR
		joined    bool
		left      bool
	}{
		{"neither address", []v1alpha1.CIDR{"10.0.0.9/32"}, false, true},
		{"one address of two", []v1alpha1.CIDR{"10.0.0.2/32"}, false, false},
		{"both", []v1alpha1.CIDR{"10.0.0.2/32", "2001:db8::2/128"}, true, false},
		{"no address", nil, false, true},
	} {
		for _, g := range []string{"used", "unused"} {
			s.slice("shop", g, 0, 1, tc.addresses...)
		}
		s.endpoint("allow", everyPod, fromGroup("used"))
		if joined := has([]policy.GroupKey{used}, nil); joined != tc.joined {
			t.Errorf("%s: joined %v", tc.name, joined)
		}
		if left := has(nil, []policy.GroupKey{used}); left != tc.left {
			t.Errorf("%s: left %v", tc.name, left)
		}
		if !has([]policy.GroupKey{unused}, nil) || !has(nil, []policy.GroupKey{unused}) {
			t.Errorf("%s: a group that no policy refers to counts", tc.name)
		}
	}
}

func TestWhetherAnotherPodHadAnAddress(t *testing.T) {
	s := newStory(t)
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: name} }
	addresses := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	s.pod("old", "10.0.0.1")
	if !s.HadOtherOwner(key("new"), addresses) || s.HadOtherOwner(key("old"), addresses) {
		t.Error("while the pod is here")
	}
	s.DeletePod(start, s.lastSeen(key("old")))
	if !s.HadOtherOwner(key("new"), addresses) || !s.HadOtherOwner(key("old"), addresses) { // another pod of that name
		t.Error("after the pod is gone")
	}
	s.ForgetNames(start.Add(NamePatience + time.Second))
	if s.HadOtherOwner(key("new"), addresses) {
		t.Error("a while after the pod is gone")
	}
}
