// Package agents queries the nodes' agents by their API (internal/agentapi), from outside the cluster: through the API server's port
// forwarding, with a token that is good for agents only.
package agents

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// DefaultNamespace is kidoban's own.
const DefaultNamespace = "kidoban-system"

// atOnce is how many agents are queried at the same time, patience how long one may take to answer.
const (
	atOnce   = 16
	patience = 15 * time.Second
)

// Agents of a cluster.
type Agents struct {
	// Pods of the agents, by node.
	Pods []corev1.Pod

	config    *rest.Config
	namespace string
	token     string
}

// Connect finds the agents, and gets a token for them.
func Connect(ctx context.Context, env *command.Env, c client.Client, namespace string) (*Agents, error) {
	a, err := Find(ctx, env, c, namespace)
	if err != nil {
		return nil, err
	}
	if err := a.Authorize(ctx, c); err != nil {
		return nil, err
	}
	return a, nil
}

// Find finds the agents. To ask them takes a token besides: see Authorize.
func Find(ctx context.Context, env *command.Env, c client.Client, namespace string) (*Agents, error) {
	config, err := env.Config.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	a := &Agents{config: config, namespace: namespace}
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": "kidoban", "app.kubernetes.io/component": "agent"}); err != nil {
		return nil, fmt.Errorf("list kidoban's agents: %w", err)
	}
	if a.Pods = pods.Items; len(a.Pods) == 0 {
		return nil, fmt.Errorf("no kidoban agents in namespace %s: is kidoban installed there? (--kidoban-namespace)", namespace)
	}
	slices.SortFunc(a.Pods, func(x, y corev1.Pod) int { return strings.Compare(x.Spec.NodeName, y.Spec.NodeName) })
	return a, nil
}

// Authorize gets a token for the agents.
func (a *Agents) Authorize(ctx context.Context, c client.Client) error {
	var err error
	a.token, err = NewToken(ctx, c, client.ObjectKey{Namespace: a.namespace, Name: agentapi.Viewer}, agentapi.Audience, "the agents")
	return err
}

// NewToken gets a token of a ServiceAccount for an audience; whom names the audience in the error.
func NewToken(ctx context.Context, c client.Client, account client.ObjectKey, audience, whom string) (string, error) {
	of := &corev1.ServiceAccount{}
	of.Namespace, of.Name = account.Namespace, account.Name
	lifetime := int64(time.Hour / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &lifetime}}
	if err := c.SubResource("token").Create(ctx, of, request); err != nil {
		return "", fmt.Errorf("get a token of ServiceAccount %s for %s (you need create on serviceaccounts/token there): %w", account, whom, err)
	}
	return request.Status.Token, nil
}

// Get an answer of one agent.
func (a *Agents) Get(ctx context.Context, pod *corev1.Pod, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := a.Open(ctx, pod, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("agent on node %s: %s: %w", pod.Spec.NodeName, path, err)
	}
	return nil
}

// Open an answer of one agent, to be read as it comes. It ends with the context.
func (a *Agents) Open(ctx context.Context, pod *corev1.Pod, path string) (io.ReadCloser, error) {
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return a.dial(pod) },
		DisableKeepAlives: true,
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("agent on node %s: %w", pod.Spec.NodeName, err)
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, fmt.Errorf("agent on node %s: %s: %s", pod.Spec.NodeName, response.Status, strings.TrimSpace(string(text)))
	}
	return response.Body, nil
}

// Each calls f for every agent, several at the same time, and joins the errors.
func (a *Agents) Each(f func(pod *corev1.Pod) error) error { return a.each(atOnce, f) }

// EachAtOnce is Each for streams, which do not end by themselves: it calls f for all agents at the same time.
func (a *Agents) EachAtOnce(f func(pod *corev1.Pod) error) error { return a.each(len(a.Pods), f) }

func (a *Agents) each(atOnce int, f func(pod *corev1.Pod) error) error {
	slots := make(chan struct{}, atOnce)
	errs := make([]error, len(a.Pods))
	var wg sync.WaitGroup
	for i := range a.Pods {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			errs[i] = f(&a.Pods[i])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// On is the agent's pod of a node, or nil.
func (a *Agents) On(node string) *corev1.Pod {
	for i := range a.Pods {
		if a.Pods[i].Spec.NodeName == node {
			return &a.Pods[i]
		}
	}
	return nil
}
