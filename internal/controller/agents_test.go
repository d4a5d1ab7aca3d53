//go:build envtest

package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/stream"
)

// agentStream is an agent's end of a stream to the test's controller.
type agentStream struct {
	t *testing.T
	grpc.BidiStreamingClient[stream.AgentMessage, stream.ControllerMessage]
	leads bool // the replica, when the stream was opened
}

// node creates a node and a pod of the agents on it, and returns the agent's token.
func (c *cluster) node(name, ip string) (token string) {
	c.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.create(node)
	c.t.Cleanup(func() { _ = c.Delete(context.Background(), node) })
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: ip}}
	if err := c.Status().Update(ctx, node); err != nil {
		c.t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: "agent-" + name}, Spec: corev1.PodSpec{
		NodeName: name, ServiceAccountName: stream.AgentServiceAccount, AutomountServiceAccountToken: new(false), HostNetwork: true,
		Containers: []corev1.Container{{Name: "c", Image: "none"}},
	}}
	c.create(pod)
	api, err := kubernetes.NewForConfig(admin)
	if err != nil {
		c.t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      []string{stream.Audience},
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	out, err := api.CoreV1().ServiceAccounts(shared).CreateToken(ctx, stream.AgentServiceAccount, request, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return out.Status.Token
}

// bound creates a pod on a node, without a status.
func (c *cluster) bound(ns, name, node string, labels map[string]string) *corev1.Pod {
	c.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns(ns), Name: name, Labels: labels}, Spec: corev1.PodSpec{
		NodeName: node, AutomountServiceAccountToken: new(false), Containers: []corev1.Container{{Name: "c", Image: "none"}},
	}}
	c.create(p)
	return p
}

// runs writes a pod's status: it runs and has an address.
func (c *cluster) runs(p *corev1.Pod, address string) {
	c.t.Helper()
	p.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}}
	if err := c.Status().Update(ctx, p); err != nil {
		c.t.Fatal(err)
	}
}

// streamObjects creates what the stream needs of the manifests.
func (c *cluster) streamObjects() {
	c.t.Helper()
	for _, obj := range []client.Object{
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: stream.AgentServiceAccount}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: stream.CertificateSecret}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: shared, Name: stream.CAConfigMap}},
	} {
		if err := client.IgnoreAlreadyExists(c.Create(ctx, obj)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// startWithStream runs a controller with a stream, and returns its address.
func startWithStream(t *testing.T) (address string) {
	t.Helper()
	options := streamOptions(t)
	runController(t, false, options)
	return options.Address
}

func streamOptions(t *testing.T) *StreamOptions {
	t.Helper()
	api, err := kubernetes.NewForConfig(user)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return &StreamOptions{Flag: "--stream-bind-address", Address: l.Addr().String(), Client: api}
}

// connect opens a stream as an agent, when the controller has published its authority.
func (c *cluster) connect(address, token string) *agentStream {
	c.t.Helper()
	var out *agentStream
	eventually(c.t, func() error {
		ca := &corev1.ConfigMap{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: shared, Name: stream.CAConfigMap}, ca); err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(ca.Data[stream.CAKey])) {
			return errors.New("no authority is published")
		}
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: stream.ServerName})))
		if err != nil {
			return err
		}
		opened, err := stream.NewStreamClient(conn).Connect(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token))
		if err == nil {
			err = opened.Send(&stream.AgentMessage{Message: &stream.AgentMessage_Hello{Hello: &stream.Hello{}}})
		}
		if err != nil {
			_ = conn.Close()
			return err
		}
		m, err := opened.Recv()
		if err != nil {
			_ = conn.Close()
			return err
		}
		if m.GetRole() == nil {
			return fmt.Errorf("the first message is %v", m)
		}
		c.t.Cleanup(func() { _ = conn.Close() })
		out = &agentStream{c.t, opened, m.GetRole().GetLeader()}
		return nil
	})
	return out
}

func (s *agentStream) announce(p *corev1.Pod, addresses ...string) {
	s.t.Helper()
	m := &stream.SandboxAdded{Uid: string(p.UID), Namespace: p.Namespace, Name: p.Name}
	for _, a := range addresses {
		m.Addresses = append(m.Addresses, netip.MustParseAddr(a).AsSlice())
	}
	if err := s.Send(&stream.AgentMessage{Message: &stream.AgentMessage_SandboxAdded{SandboxAdded: m}}); err != nil {
		s.t.Fatal(err)
	}
}

// answer waits for Published or Refused.
func (s *agentStream) answer() *stream.ControllerMessage {
	s.t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if m.GetPublished() != nil || m.GetRefused() != nil {
			return m
		}
	}
}

func (s *agentStream) expectRefused(p *corev1.Pod, want stream.Refused_Reason, addresses ...string) {
	s.t.Helper()
	s.announce(p, addresses...)
	if m := s.answer(); m.GetRefused() == nil || m.GetRefused().GetReason() != want || m.GetRefused().GetUid() != string(p.UID) {
		s.t.Errorf("%s with %v: %v, want %s", p.Name, addresses, m, want)
	}
}

// An announced pod is in its groups before its status has an address, and the answer says that they are written.
func TestAnnouncements(t *testing.T) {
	c := newCluster(t, "shop")
	c.streamObjects()
	first, second := c.node("early-1", "192.0.2.1"), c.node("early-2", "192.0.2.2")
	np := c.policy("shop", "db", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	web := map[string]string{"app": "web"}
	c.runs(c.bound("shop", "former", "early-1", web), "10.9.0.1")
	address := startWithStream(t)
	c.expectPeers(np, v1alpha1.PolicyTypeIngress, "10.9.0.1")
	s := c.connect(address, first)

	p := c.bound("shop", "web", "early-1", web)
	s.announce(p, "10.9.0.2")
	m := s.answer().GetPublished()
	if m == nil || m.GetUid() != string(p.UID) || len(m.GetGroups()) != 1 || len(m.GetLeft()) != 0 {
		t.Fatalf("answered %v", m)
	}
	// Written means written: there is no need to wait.
	if got, err := c.peers(np, v1alpha1.PolicyTypeIngress); err != nil || got != "10.9.0.1 10.9.0.2" {
		t.Errorf("when it is published, the peers are %q, %v", got, err)
	}

	// The address of a pod of the node that is gone, for a pod that no policy selects as a peer.
	other := c.bound("shop", "other", "early-1", map[string]string{"app": "other"})
	s.announce(other, "10.9.0.1")
	if m := s.answer().GetPublished(); m == nil || len(m.GetGroups()) != 0 || len(m.GetLeft()) != 1 {
		t.Errorf("a reused address: %v", m)
	}
	if got, err := c.peers(np, v1alpha1.PolicyTypeIngress); err != nil || got != "10.9.0.2" {
		t.Errorf("when it is withdrawn, the peers are %q, %v", got, err)
	}

	// What a node must not announce.
	elsewhere := c.bound("shop", "elsewhere", "early-2", web)
	c.runs(elsewhere, "10.9.0.3")
	c.expectPeers(np, v1alpha1.PolicyTypeIngress, "10.9.0.2 10.9.0.3")
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "db"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	c.create(service)
	newcomer := c.bound("shop", "newcomer", "early-1", web)
	eventually(t, func() error { // the watch of Services may be late
		s.announce(newcomer, service.Spec.ClusterIP)
		if m := s.answer(); m.GetRefused().GetReason() != stream.Refused_ADDRESS_IN_USE {
			return fmt.Errorf("a Service's address: %v", m)
		}
		return nil
	})
	s.expectRefused(elsewhere, stream.Refused_OTHER_NODE, "10.9.0.4")
	s.expectRefused(newcomer, stream.Refused_ADDRESS_IN_USE, "10.9.0.4", "10.9.0.3")
	s.expectRefused(newcomer, stream.Refused_ADDRESS_IN_USE, "192.0.2.2")
	s.expectRefused(newcomer, stream.Refused_INVALID, "127.0.0.1")
	s.expectRefused(newcomer, stream.Refused_INVALID, "fe80::1")
	s.expectRefused(newcomer, stream.Refused_INVALID)
	long := newcomer.DeepCopy()
	long.UID = types.UID(strings.Repeat("x", 60_000))
	s.announce(long, "10.9.0.4")
	if m := s.answer().GetRefused(); m.GetReason() != stream.Refused_INVALID || m.GetUid() != "" {
		t.Errorf("a UID of 60,000 bytes: %d bytes are sent back, %s", len(m.GetUid()), m.GetReason())
	}
	hostNetwork := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "host", Labels: web}, Spec: *newcomer.Spec.DeepCopy()}
	hostNetwork.Spec.HostNetwork = true
	c.create(hostNetwork)
	eventually(t, func() error { // the watch of pods may be late
		s.announce(hostNetwork, "10.9.0.4")
		if m := s.answer(); m.GetRefused().GetReason() != stream.Refused_HOST_NETWORK {
			return fmt.Errorf("a pod on the host's network: %v", m)
		}
		return nil
	})
	wrong := newcomer.DeepCopy()
	wrong.UID = "other"
	s.expectRefused(wrong, stream.Refused_POD_UNKNOWN, "10.9.0.4")

	// A withdrawn announcement ends at once.
	s.announce(newcomer, "10.9.0.5")
	if m := s.answer().GetPublished(); m == nil {
		t.Fatal("it is refused")
	}
	if err := s.Send(&stream.AgentMessage{Message: &stream.AgentMessage_SandboxEnded{SandboxEnded: &stream.SandboxEnded{Uid: string(newcomer.UID)}}}); err != nil {
		t.Fatal(err)
	}
	c.expectPeers(np, v1alpha1.PolicyTypeIngress, "10.9.0.2 10.9.0.3")

	// A burst, while another node announces.
	burst := make([]*corev1.Pod, 20)
	for i := range burst {
		burst[i] = c.bound("shop", fmt.Sprint("burst-", i), "early-1", web)
	}
	begin := time.Now()
	for i, p := range burst {
		s.announce(p, fmt.Sprint("10.9.1.", i))
	}
	s2 := c.connect(address, second)
	q := c.bound("shop", "quiet", "early-2", web)
	s2.announce(q, "10.9.2.1")
	if m := s2.answer().GetPublished(); m == nil {
		t.Error("the other node is refused")
	}
	answered := []string{}
	for range burst {
		answered = append(answered, s.answer().GetPublished().GetUid())
	}
	t.Logf("20 pods and one of another node were published in %s", time.Since(begin))
	slices.Sort(answered)
	if len(slices.Compact(answered)) != len(burst) || answered[0] == "" {
		t.Errorf("published are %v", answered)
	}

	// The node knows a static pod by another UID than its mirror's.
	mirror := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "mirror", Labels: web}, Spec: *p.Spec.DeepCopy()}
	mirror.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "static"}
	mirror.Spec.ServiceAccountName, mirror.Spec.DeprecatedServiceAccount = "", ""
	c.create(mirror)
	static := mirror.DeepCopy()
	static.UID = "static"
	s.announce(static, "10.9.2.4")
	if m := s.answer().GetPublished(); m.GetUid() != "static" || len(m.GetGroups()) != 1 {
		t.Errorf("a static pod: %v", m)
	}

	// The status says on how many nodes the policy is in force, at first on none of those without pods.
	pe, err := c.endpointOf(np)
	if err != nil {
		t.Fatal(err)
	}
	s.reportInForce(pe)
	s2.reportInForce()
	c.expectInForce(np, metav1.ConditionTrue, "all 0 nodes")
	db := map[string]string{"app": "db"}
	c.runs(c.bound("shop", "db-1", "early-1", db), "10.9.6.1")
	c.runs(c.bound("shop", "db-2", "early-2", db), "10.9.6.2")
	c.expectInForce(np, metav1.ConditionFalse, "on 1 of 2 nodes")
	s2.reportInForce(pe)
	c.expectInForce(np, metav1.ConditionTrue, "all 2 nodes")

	// The other node holds the group, and is asked. No other agent can answer for it.
	confirmed := c.bound("shop", "confirmed", "early-1", web)
	s.announce(confirmed, "10.9.3.1")
	if m := s.answer().GetPublished(); !m.GetConfirms() || m.GetUid() != string(confirmed.UID) {
		t.Fatalf("answered %v", m)
	}
	asked := s2.receive().GetAskInForce()
	if len(asked.GetGroups()) != 1 || len(asked.GetLeft()) != 0 || len(asked.GetAddresses()) != 1 {
		t.Fatalf("asked %v", asked)
	}
	answer := &stream.AgentMessage{Message: &stream.AgentMessage_GroupsInForce{GroupsInForce: &stream.GroupsInForce{Id: asked.GetId()}}}
	for _, from := range []*agentStream{s, s2} {
		if err := from.Send(answer); err != nil {
			t.Fatal(err)
		}
	}
	if m := s.receive().GetConfirmed(); m.GetUid() != string(confirmed.UID) {
		t.Errorf("it is not confirmed: %v", m)
	}

	// An agent that announces without end, unknown pods and one that exists, does not slow the other.
	const flood = 10_000
	var sent atomic.Int64
	flooding := s // s is another stream later
	go func() {
		for i := range flood {
			m := &stream.SandboxAdded{Uid: fmt.Sprint("none-", i), Namespace: p.Namespace, Name: "none", Addresses: [][]byte{{10, 9, 4, 1}}}
			if i%2 == 0 {
				m.Uid, m.Name, m.Addresses = string(p.UID), p.Name, [][]byte{{10, 9, 4, byte(i)}}
			}
			if flooding.Send(&stream.AgentMessage{Message: &stream.AgentMessage_SandboxAdded{SandboxAdded: m}}) != nil {
				return // the test has ended
			}
			sent.Add(1)
		}
	}()
	go func() {
		for {
			if _, err := flooding.Recv(); err != nil {
				return
			}
		}
	}()
	eventually(t, func() error {
		if n := sent.Load(); n < flood/20 {
			return fmt.Errorf("%d announcements were sent", n)
		}
		return nil
	})
	for i := range 5 {
		p := c.bound("shop", fmt.Sprint("meanwhile-", i), "early-2", map[string]string{"app": "other"})
		begin := time.Now()
		s2.announce(p, fmt.Sprint("10.9.5.", i+1))
		if m := s2.answer().GetPublished(); m.GetUid() != string(p.UID) {
			t.Errorf("answered %v", m)
		}
		took := time.Since(begin)
		t.Logf("with %d announcements of another node, one was answered after %s", sent.Load(), took)
		if took > 2*time.Second {
			t.Error("that is too late")
		}
	}

	// A new stream of that node does not begin anew: there are too many, and that is counted.
	before := testutil.ToFloat64(announcements.WithLabelValues("TooMany"))
	s = c.connect(address, first)
	const together = 100 // few enough for the queue of answers
	tooMany := 0
	for range 50 {
		for range together {
			s.announce(newcomer) // without an address, so that nothing is written
		}
		for range together {
			if s.answer().GetRefused().GetReason() == stream.Refused_TOO_MANY {
				tooMany++
			}
		}
		if tooMany > 0 {
			break
		}
	}
	if tooMany == 0 {
		t.Error("none is refused because there are too many")
	}
	if counted := testutil.ToFloat64(announcements.WithLabelValues("TooMany")) - before; counted < float64(tooMany) {
		t.Errorf("%v of %d are counted", counted, tooMany)
	}
}

// A replica that does not lead answers nothing, and neither refuses: the leader may have seen newer objects. When it leads, it answers what it was
// sent meanwhile, and publishes the addresses of pods whose status has none.
func TestAFollowerAnswersWhenItLeads(t *testing.T) {
	c := newCluster(t, "shop")
	c.streamObjects()
	token := c.node("follower-1", "192.0.2.21")
	np := c.policy("shop", "db", `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}`)
	web := map[string]string{"app": "web"}
	first, second := streamOptions(t), streamOptions(t)
	stop := runController(t, true, first)
	c.runs(c.bound("shop", "before", "follower-1", web), "10.9.8.1")
	c.expectPeers(np, v1alpha1.PolicyTypeIngress, "10.9.8.1")
	if s := c.connect(first.Address, token); !s.leads {
		t.Error("the first replica does not lead")
	}
	runController(t, true, second)
	s := c.connect(second.Address, token)
	if s.leads {
		t.Fatal("the second replica leads")
	}
	p := c.bound("shop", "web", "follower-1", web)
	accepted := testutil.ToFloat64(announcements.WithLabelValues("Accepted"))
	s.announce(p, "10.9.8.2")
	refused := c.bound("shop", "refused", "follower-1", web)
	s.announce(refused, "192.0.2.21") // the node's address
	eventually(t, func() error {
		if n := testutil.ToFloat64(announcements.WithLabelValues("Accepted")); n <= accepted {
			return errors.New("the announcement was not taken in")
		}
		return nil
	})
	if got, err := c.peers(np, v1alpha1.PolicyTypeIngress); err != nil || got != "10.9.8.1" {
		t.Errorf("while the other replica leads, the peers are %q, %v", got, err)
	}
	stop()
	if m := s.receive(); !m.GetRole().GetLeader() {
		t.Fatalf("before it leads it sends %v", m)
	}
	answers := map[string]string{}
	for range 2 {
		m := s.answer()
		answers[m.GetPublished().GetUid()+m.GetRefused().GetUid()] = fmt.Sprint(m.GetPublished() != nil, m.GetRefused().GetReason())
	}
	if got := answers[string(p.UID)]; got != "true "+stream.Refused_REASON_UNSPECIFIED.String() {
		t.Errorf("the answer is %s", got)
	}
	if got := answers[string(refused.UID)]; got != "false "+stream.Refused_ADDRESS_IN_USE.String() {
		t.Errorf("the answer about the node's address is %s", got)
	}
	c.expectPeers(np, v1alpha1.PolicyTypeIngress, "10.9.8.1 10.9.8.2")
}

func (s *agentStream) receive() *stream.ControllerMessage {
	s.t.Helper()
	m, err := s.Recv()
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// reportInForce reports the versions of these policies and no others.
func (s *agentStream) reportInForce(policies ...*v1alpha1.PolicyEndpoint) {
	s.t.Helper()
	m := &stream.InForce{Full: true}
	for _, pe := range policies {
		m.Policies = append(m.Policies, &stream.PolicyState{
			Kind: stream.PolicyState_POLICY_ENDPOINT, Namespace: pe.Namespace, Name: pe.Name, Uid: string(pe.UID), Generation: pe.Generation,
		})
	}
	if err := s.Send(&stream.AgentMessage{Message: &stream.AgentMessage_InForce{InForce: m}}); err != nil {
		s.t.Fatal(err)
	}
}

func (c *cluster) expectInForce(np *networkingv1.NetworkPolicy, want metav1.ConditionStatus, message string) {
	c.t.Helper()
	eventually(c.t, func() error {
		pe, err := c.endpointOf(np)
		if err != nil {
			return err
		}
		condition := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionInForce)
		if condition == nil || condition.Status != want || !strings.Contains(condition.Message, message) || condition.ObservedGeneration != pe.Generation {
			return fmt.Errorf("the condition is %+v", condition)
		}
		return nil
	})
}
