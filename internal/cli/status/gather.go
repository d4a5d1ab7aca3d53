// Package status reports whether kidoban works: agents, policies in force on every node, and problems that need action.
package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// Status is the output of `status -o json`.
type Status struct {
	Healthy    bool     `json:"healthy"`
	Controller string   `json:"controller"` // "1/1 ready"
	Nodes      []Node   `json:"nodes"`
	Policies   []Policy `json:"policies"`
	// Attention are the problems that need action.
	Attention []string `json:"attention,omitempty"`
	// Unseen are interfaces of pods that policies do not apply to.
	Unseen []UnseenInterface `json:"unseen,omitempty"`
	// Resolvers that nodes trust, where policies have domain names.
	Resolvers []Resolver `json:"resolvers,omitempty"`
	// Observer is the pod of the observer that was asked, and Observed the number of agents that answered through it. The others were asked
	// directly.
	Observer string `json:"observer,omitempty"`
	Observed int    `json:"observed,omitempty"`
	// observerProblem is why the observer that is installed has not answered.
	observerProblem error
	// Denied counts the connections denied in the last agentapi.DeniedWithin that agents remember; -1: the agents were not queried.
	Denied int `json:"denied"`
}

// UnseenInterface is an interface of a pod whose traffic the agent does not see.
type UnseenInterface struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	agentapi.Interface
}

// Node and its agent.
type Node struct {
	Name     string `json:"name"`
	Kernel   string `json:"kernel"`
	Agent    string `json:"agent,omitempty"` // the pod
	Image    string `json:"image,omitempty"`
	Ready    bool   `json:"ready"`
	Restarts int32  `json:"restarts"`
	// Version of the agent, and entries of the kernel's maps that it found otherwise than they should be and put right since it started.
	Version string `json:"version,omitempty"`
	Drift   uint64 `json:"drift"`
	Pods    int    `json:"pods"` // with policies in force
	Audit   int    `json:"audit"`
	// BootGap is the container runtime, if pods may start there after a boot before the agent does.
	BootGap string `json:"bootGap,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Policy and how far it is in force.
type Policy struct {
	// Kind is ClusterNetworkPolicy, or empty for a NetworkPolicy.
	Kind       string `json:"kind,omitempty"`
	Namespace  string `json:"namespace"`
	Name       string `json:"name"`
	Generation int64  `json:"generation"`
	// Resolved is the condition of its PolicyEndpoint: True, False, Missing where there is none yet, or Behind where it is about an
	// older generation.
	Resolved string `json:"resolved"`
	// Message is why it is False, or why it is Behind: the API server rejected this generation's objects.
	Message string `json:"message,omitempty"`
	Groups  int    `json:"groups"`
	// Nodes that have pods in its namespace.
	Nodes []NodePolicy `json:"nodes"`
	// Audited: the policy isolates no pod and denies nothing. AuditedSince is since when.
	Audited      bool         `json:"audited,omitempty"`
	AuditedSince *metav1.Time `json:"auditedSince,omitempty"`
	// Live are the connections that enforcing the audited policy would cut, on all nodes that answered.
	Live *agentapi.LiveDenials `json:"live,omitempty"`
	// InForce is on how many of them this generation is.
	InForce int `json:"inForce"`
	// SlowestSeconds of them, from the moment that the agent saw it.
	SlowestSeconds float64 `json:"slowestSeconds"`
	// Names are the policy's domain names.
	Names []NameOnNodes `json:"names,omitempty"`
}

// NodePolicy is a policy on one node.
type NodePolicy struct {
	Node           string   `json:"node"`
	State          string   `json:"state"` // InForce, Pending, Isolating, Unknown
	Generation     int64    `json:"generation,omitempty"`
	Pods           int      `json:"pods"`
	LatencySeconds float64  `json:"latencySeconds,omitempty"`
	WaitingFor     []string `json:"waitingFor,omitempty"`
	Problem        string   `json:"problem,omitempty"`
}

// Everywhere reports whether the policy is in force on each node, as it is now.
func (p *Policy) Everywhere() bool {
	return p.InForce == len(p.Nodes) && p.Resolved == string(metav1.ConditionTrue)
}

// selection is which policies are shown: those of a namespace, or one if it has a name. None: all.
type selection struct {
	types.NamespacedName
	cluster bool // ClusterNetworkPolicies, too
}

// gather asks the API server and all agents.
func gather(ctx context.Context, env *command.Env, c client.Client, namespace string, only selection) (*Status, error) {
	s := &Status{Denied: -1, Nodes: []Node{}, Policies: []Policy{}}
	if err := s.controller(ctx, c, namespace); err != nil {
		return nil, err
	}
	a, err := agents.Find(ctx, env, c, namespace)
	if err != nil {
		return nil, err
	}
	var nodes corev1.NodeList
	if err := c.List(ctx, &nodes); err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	var pods corev1.PodList // before agents are asked, who need not know of later ones
	if err := c.List(ctx, &pods, client.InNamespace(only.Namespace)); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	reports, err := s.ask(ctx, env, a, c, namespace)
	if err != nil {
		s.Attention = append(s.Attention, err.Error())
	}
	for i := range nodes.Items {
		s.node(&nodes.Items[i], a.On(nodes.Items[i].Name), reports[nodes.Items[i].Name])
	}
	s.unjudged(pods.Items, reports)
	if err := s.policies(ctx, c, pods.Items, reports, only); err != nil {
		return nil, err
	}
	if err := s.clusterPolicies(ctx, c, pods.Items, reports, only); err != nil {
		return nil, err
	}
	s.domainNames(reports)
	switch {
	case only.Name == "" || len(s.Policies) > 0:
	case only.cluster:
		return nil, fmt.Errorf("no NetworkPolicy %s, and no %s %s", only.NamespacedName, model.ClusterPolicyResource, only.Name)
	default:
		return nil, fmt.Errorf("no NetworkPolicy %s", only.NamespacedName)
	}
	if err == nil && reports != nil {
		s.Denied = 0
		for _, r := range reports {
			s.Denied += r.denied
		}
	}
	s.Healthy = len(s.Attention) == 0 && !slices.ContainsFunc(s.Policies, func(p Policy) bool { return !p.Everywhere() })
	return s, nil
}

func (s *Status) controller(ctx context.Context, c client.Client, namespace string) error {
	var list appsv1.DeploymentList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": "kidoban", "app.kubernetes.io/component": "controller"}); err != nil {
		return fmt.Errorf("list kidoban's controller: %w", err)
	}
	if len(list.Items) == 0 {
		if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
			return err
		}
	}
	if len(list.Items) == 0 {
		s.attend("no controller in namespace %s", namespace)
		return nil
	}
	d, want := &list.Items[0], int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s.Controller = fmt.Sprintf("%d/%d ready", d.Status.ReadyReplicas, want)
	if d.Status.ReadyReplicas == 0 {
		s.attend("no controller is ready: new policies and pods do not come into force (kubectl -n %s get pods)", namespace)
	}
	return nil
}

func (s *Status) attend(format string, args ...any) {
	s.Attention = append(s.Attention, fmt.Sprintf(format, args...))
}

func (s *Status) node(node *corev1.Node, agent *corev1.Pod, r *report) {
	n := Node{Name: node.Name, Kernel: node.Status.NodeInfo.KernelVersion}
	if agent == nil {
		n.Error = "no agent runs there: policies are not in force for its pods"
	} else {
		n.Agent = agent.Name
		for _, cs := range agent.Status.ContainerStatuses {
			n.Image, n.Ready, n.Restarts = cs.Image, cs.Ready, n.Restarts+cs.RestartCount
			if w := cs.State.Waiting; w != nil {
				n.Error = strings.TrimSuffix(fmt.Sprintf("%s: %s", w.Reason, w.Message), ": ")
			}
		}
		if !n.Ready && n.Error == "" {
			n.Error = "the agent is not ready"
		}
	}
	if r != nil {
		s.usage(&n, &r.node)
		n.Pods = len(r.pods)
		for _, p := range r.pods {
			for _, i := range p.Unseen {
				s.Unseen = append(s.Unseen, UnseenInterface{p.Namespace, p.Name, i})
			}
			if p.Mode == agentapi.ModeAudit {
				n.Audit++
			}
		}
		if r.err != nil && n.Error == "" {
			n.Error = r.err.Error()
		}
	}
	if n.Error != "" {
		s.attend("node %s: %s", n.Name, n.Error)
	}
	s.Nodes = append(s.Nodes, n)
}

func (s *Status) policies(ctx context.Context, c client.Client, pods []corev1.Pod, reports map[string]*report, only selection) error {
	where := []client.ListOption{client.InNamespace(only.Namespace)}
	var nps networkingv1.NetworkPolicyList
	var pes v1alpha1.PolicyEndpointList
	for _, list := range []client.ObjectList{&nps, &pes} {
		if err := c.List(ctx, list, where...); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	nodes := map[string]map[string]bool{} // by namespace, those with pods in it
	for i := range pods {
		if p := &pods[i]; policy.IsPeer(p) && p.Spec.NodeName != "" {
			if nodes[p.Namespace] == nil {
				nodes[p.Namespace] = map[string]bool{}
			}
			nodes[p.Namespace][p.Spec.NodeName] = true
		}
	}
	endpoints := map[types.UID]*v1alpha1.PolicyEndpoint{}
	for i := range pes.Items {
		endpoints[pes.Items[i].Spec.PolicyRef.UID] = &pes.Items[i]
	}
	for i := range nps.Items {
		np := &nps.Items[i]
		if only.Name != "" && np.Name != only.Name {
			continue
		}
		p := newPolicy(np, endpoints[np.UID])
		s.add(&p, np, agentapi.KindNetworkPolicy, nodes[np.Namespace], reports)
	}
	return nil
}

// add a policy with what the agents of some nodes report of it.
func (s *Status) add(p *Policy, object metav1.Object, kind string, nodes map[string]bool, reports map[string]*report) {
	for node := range nodes {
		p.Nodes = append(p.Nodes, onNode(object, kind, node, reports[node]))
	}
	if p.Audited {
		p.addLive(object, kind, reports)
	}
	slices.SortFunc(p.Nodes, func(a, b NodePolicy) int { return cmp.Compare(a.Node, b.Node) })
	for _, n := range p.Nodes {
		if n.State == agentapi.StateInForce {
			p.InForce++
			p.SlowestSeconds = max(p.SlowestSeconds, n.LatencySeconds)
		}
	}
	switch {
	case p.Resolved == string(metav1.ConditionFalse):
		s.attend("%s: %s", p.describe(), p.Message)
	case p.Message != "":
		s.attend("%s: an older version stays in force: %s", p.describe(), p.Message)
	}
	s.Policies = append(s.Policies, *p)
}

// describe is "NetworkPolicy namespace/name" or "ClusterNetworkPolicy name".
func (p *Policy) describe() string {
	if p.Kind != "" {
		return p.Kind + " " + p.Name
	}
	return agentapi.KindNetworkPolicy + " " + p.Namespace + "/" + p.Name
}

// unwritten are the reasons for which a version is not written, so that the PolicyEndpoint still has the one before.
var unwritten = []string{v1alpha1.ReasonRejected, v1alpha1.ReasonTooLarge, v1alpha1.ReasonOverBudget}

func newPolicy(np *networkingv1.NetworkPolicy, pe *v1alpha1.PolicyEndpoint) Policy {
	p := Policy{
		Namespace: np.Namespace, Name: np.Name, Generation: np.Generation, Audited: policy.IsLabelledAudit(np.Labels), Resolved: "Missing", Nodes: []NodePolicy{},
	}
	if pe == nil {
		return p
	}
	p.resolved(pe.Spec.PolicyRef.Generation, pe.Generation, pe.Spec.Enforcement, &pe.Status, policy.GroupKeys(pe.Namespace, "", pe.Spec.Ingress, pe.Spec.Egress))
	return p
}

// resolved reads the status of the policy's object, which is made of a generation of the policy and refers to groups.
func (p *Policy) resolved(madeOf, generation int64, enforcement v1alpha1.Enforcement, status *v1alpha1.EndpointStatus, keys []policy.GroupKey) {
	cond := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionResolved)
	if audited := apimeta.FindStatusCondition(status.Conditions, v1alpha1.ConditionAudited); audited != nil && p.Audited {
		p.AuditedSince = &audited.LastTransitionTime
	}
	if madeOf != p.Generation || (enforcement == v1alpha1.EnforcementAudit) != p.Audited { // a label is not of the generation
		p.Resolved = "Behind" // the controller has not come to this generation yet, or could not write it
		if cond != nil && cond.Status == metav1.ConditionFalse && slices.Contains(unwritten, cond.Reason) {
			p.Message = cond.Reason + ": " + cond.Message
		}
		return
	}
	groups := map[policy.GroupKey]bool{}
	for _, g := range keys {
		groups[g] = true
	}
	p.Groups = len(groups)
	if cond == nil {
		return
	}
	of := status.PolicyGeneration                                               // 0: a version of the controller that does not write it
	if cond.ObservedGeneration != generation || of != 0 && of != p.Generation { // it is about what was there before
		p.Resolved = "Behind"
		return
	}
	p.Resolved = string(cond.Status)
	if cond.Status != metav1.ConditionTrue {
		p.Message = cond.Reason + ": " + cond.Message
	}
}

func onNode(np metav1.Object, kind, node string, r *report) NodePolicy {
	out := NodePolicy{Node: node, State: "Unknown"}
	if r == nil || r.err != nil {
		return out
	}
	out.State = agentapi.StatePending
	p := agentapi.FindPolicy(r.policies, agentapi.PolicyRef{Kind: kind, Namespace: np.GetNamespace(), Name: np.GetName()})
	if p == nil {
		return out
	}
	out.Pods, out.WaitingFor, out.Problem = p.Pods, p.WaitingFor, p.Problem
	if p.Realised != nil {
		out.Generation, out.LatencySeconds = p.Realised.Generation, p.Realised.LatencySeconds
		isAsLabelled := p.Audited == policy.IsLabelledAudit(np.GetLabels())
		if p.State == agentapi.StateInForce && isAsLabelled && p.Realised.Generation == np.GetGeneration() && p.Realised.UID == string(np.GetUID()) {
			out.State = agentapi.StateInForce
		}
	}
	if p.State == agentapi.StateIsolating {
		out.State = agentapi.StateIsolating
	}
	return out
}
