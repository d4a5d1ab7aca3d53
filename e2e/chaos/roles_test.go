//go:build e2e

package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
	"github.com/kidoban/kidoban/internal/agentapi"
)

// refusals are when something is refused for reasons that are not the roles': they were taken away, or an API server that
// has just started does not know them yet.
var refusals spans

type spans struct {
	mu    sync.Mutex
	start []time.Time
	end   []time.Time
}

// expect opens a span that lasts until a while after done is called.
func (s *spans) expect() (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.start)
	s.start, s.end = append(s.start, time.Now().Add(-time.Second)), append(s.end, time.Time{})
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.end[i] = time.Now().Add(10 * time.Second)
	}
}

func (s *spans) hold(at time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.start {
		if at.After(s.start[i]) && (s.end[i].IsZero() || at.Before(s.end[i])) {
			return true
		}
	}
	return false
}

// A call is what one half asks of the API server, and what a role allows.
type call struct{ user, verb, resource string }

func (c call) String() string { return fmt.Sprintf("%s: %s %s", c.user, c.verb, c.resource) }

// unasked are calls that a role allows and that no run makes for certain.
var unasked = map[call]string{
	{"controller", "patch", "events"}:               "the election tells of itself once a leader",
	{"controller", "patch", "events.k8s.io/events"}: "an Event that comes again is counted in its series",
}

// isUnasked reports whether a call need not be among those that were made. A watch begins with a list where the API server does not stream one.
func isUnasked(c call, used map[call]bool) bool {
	return unasked[c] != "" || c.verb == "list" && used[call{c.user, "watch", c.resource}]
}

// TestRoles holds the calls that the API server has noted, of this whole run, against the roles: none is refused, and every rule is needed.
func TestRoles(t *testing.T) {
	// What no other test asks for: an Event about a policy, a policy so large that the controller keeps an outline of it, the agent's own API,
	// and a look past the controller's cache, which shows what bears its label.
	bad := ingress("unknown-port", server, friend)
	bad.Spec.Egress = append(bad.Spec.Egress, egressTo(server, "no-such-port"))
	bad.Spec.PolicyTypes = append(bad.Spec.PolicyTypes, "Egress")
	bad.Spec.PodSelector = *role("nobody")
	create(t, bad)
	large := ingress("large", server, friend)
	large.Spec.PodSelector = *role("nobody")
	for i := range 1000 {
		block := &networkingv1.IPBlock{CIDR: fmt.Sprintf("198.51.%d.%d/32", i/250, i%250)}
		large.Spec.Ingress[0].From = append(large.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: block})
	}
	create(t, large)
	token, err := cluster.Output(test.Kubectl(t.Context(), "-n", engine.Namespace, "create", "token", "kidoban-agent", "--audience="+agentapi.Audience))
	must(t, err)
	_ = onNode(t, steady[0], "curl", "-s", "-o", "/dev/null", "-H", "Authorization: Bearer "+strings.TrimSpace(token), fmt.Sprintf("http://127.0.0.1:%d%s", agentapi.DefaultPort, agentapi.PathNode))

	must(t, test.Kubectl(t.Context(), "label", "policyendpoints,policyendpointslices", "-A", "-l", v1alpha1.LabelManagedBy+"="+v1alpha1.ManagedByController, v1alpha1.LabelManagedBy+"-").Run())

	allowed := map[call]bool{}
	for half, roles := range map[string][]client.Object{
		"agent":      {&rbacv1.ClusterRole{}},
		"controller": {&rbacv1.ClusterRole{}, &rbacv1.Role{}},
	} {
		for _, r := range roles {
			for _, rule := range rulesOf(t, half, r) {
				for _, group := range rule.APIGroups {
					for _, resource := range rule.Resources {
						for _, verb := range rule.Verbs {
							allowed[call{half, verb, strings.TrimPrefix(group+"/"+resource, "/")}] = true
						}
					}
				}
			}
		}
	}
	eventually(t, "each rule of the roles is used", func(context.Context) error {
		used := readAudit(t)
		var missing []string
		for c := range allowed {
			if !used[c] && !isUnasked(c, used) {
				missing = append(missing, c.String())
			}
		}
		if slices.Sort(missing); len(missing) > 0 {
			return fmt.Errorf("not asked for:\n\t%s", strings.Join(missing, "\n\t"))
		}
		return nil
	})
	t.Logf("%d kinds of calls allowed", len(allowed))
}

func rulesOf(t *testing.T, half string, o client.Object) []rbacv1.PolicyRule {
	t.Helper()
	switch r := o.(type) {
	case *rbacv1.ClusterRole:
		must(t, api.Get(t.Context(), client.ObjectKey{Name: "kidoban-" + half}, r))
		return r.Rules
	case *rbacv1.Role:
		must(t, api.Get(t.Context(), client.ObjectKey{Namespace: engine.Namespace, Name: "kidoban-controller-leader-election"}, r))
		return r.Rules
	}
	return nil
}

// readAudit is the calls of both halves that were not refused. A refusal fails the test, and so does a call that is of no resource of the API.
func readAudit(t *testing.T) map[call]bool {
	t.Helper()
	used := map[call]bool{}
	files, err := filepath.Glob(test.Dir("log", "audit*.log"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal(fs.ErrNotExist)
	}
	for _, file := range files {
		f, err := os.Open(file)
		must(t, err)
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e struct {
				User           struct{ Username string }
				Verb           string
				RequestURI     string
				ObjectRef      *struct{ APIGroup, Resource, Subresource string }
				ResponseStatus struct{ Code int }
				StageTimestamp time.Time
			}
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				continue // the last line, half written
			}
			half, ok := strings.CutPrefix(e.User.Username, "system:serviceaccount:"+engine.Namespace+":kidoban-")
			if !ok || e.ObjectRef == nil {
				continue
			}
			resource := strings.TrimPrefix(e.ObjectRef.APIGroup+"/"+e.ObjectRef.Resource, "/")
			if e.ObjectRef.Subresource != "" {
				resource += "/" + e.ObjectRef.Subresource
			}
			c := call{half, e.Verb, resource}
			if e.ResponseStatus.Code == 403 {
				if !refusals.hold(e.StageTimestamp) {
					t.Errorf("%s: refused %s (%s)", e.StageTimestamp, c, e.RequestURI)
				}
				continue
			}
			used[c] = true
		}
		must(t, lines.Err())
	}
	return used
}
