// Package observer asks the observer of a cluster by its API (internal/observerapi), from outside the cluster: through the API
// server's port forwarding, with a token that is good for the observer only.
package observer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// patience is how long the observer may take for an answer that ends.
const patience = time.Minute

// Observer is one replica of the observer.
type Observer struct {
	// Pod is the replica that is asked.
	Pod corev1.Pod

	client http.Client
	token  string
}

// Connect finds the replica that is ready and has the longest history, and gets a token for it. It returns nil if no observer is installed.
func Connect(ctx context.Context, env *command.Env, c client.Client, namespace string) (*Observer, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/name": "kidoban", "app.kubernetes.io/component": "observer"}); err != nil {
		return nil, fmt.Errorf("list the observer's pods: %w", err)
	}
	if len(pods.Items) == 0 {
		return nil, nil
	}
	ready := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return !isReady(&p) })
	if len(ready) == 0 {
		return nil, fmt.Errorf("no replica of the observer in namespace %s is ready", namespace)
	}
	roots, err := authorities(ctx, c, namespace)
	if err != nil {
		return nil, err
	}
	account, err := accountOf(env.ObserverAccount, namespace)
	if err != nil {
		return nil, err
	}
	token, err := agents.NewToken(ctx, c, account, observerapi.Audience, "the observer")
	if err != nil {
		return nil, err
	}
	config, err := env.Config.ToRESTConfig()
	if err != nil {
		return nil, err
	}
	replicas := make([]*Observer, len(ready))
	for i := range ready {
		o := &Observer{Pod: ready[i], token: token}
		o.client.Transport = &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				return agents.Forward(config, &o.Pod, observerapi.Port)
			},
			TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: observerapi.Service, MinVersion: tls.VersionTLS13},
			DisableKeepAlives: true,
		}
		replicas[i] = o
	}
	return longest(ctx, replicas, func(ctx context.Context, o *Observer) (time.Time, error) {
		var list observerapi.FlowList
		err := o.Get(ctx, observerapi.PathFlows, longAgo, &list)
		return list.Coverage.CompleteSince, err
	}), nil
}

// longAgo is a time of which no replica has flows. The answer about it says since when a replica has all of them, and any reader may ask, which is
// not so for the status of a replica.
var longAgo = url.Values{"since": {"1970-01-01T00:00:00Z"}, "until": {"1970-01-01T00:00:01Z"}}

// accountOf returns the ServiceAccount that a flag names.
func accountOf(flag, namespace string) (client.ObjectKey, error) {
	if flag == "" {
		return client.ObjectKey{Namespace: namespace, Name: agentapi.Viewer}, nil
	}
	of, name, ok := strings.Cut(flag, "/")
	if !ok || of == "" || name == "" || strings.Contains(name, "/") {
		return client.ObjectKey{}, fmt.Errorf("--observer-account=%s: give NAMESPACE/NAME of a ServiceAccount", flag)
	}
	return client.ObjectKey{Namespace: of, Name: name}, nil
}

// statusPatience is how long a replica may take to report since when it has flows.
const statusPatience = 5 * time.Second

// longest returns the replica that is complete for longest, by the time that a function returns. All replicas receive what agents push, so one
// that has restarted without its flows has none that this one lacks. Of replicas that do not answer it returns the first.
func longest(ctx context.Context, replicas []*Observer, began func(context.Context, *Observer) (time.Time, error)) *Observer {
	if len(replicas) == 1 {
		return replicas[0]
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	times := make([]time.Time, len(replicas))
	var group sync.WaitGroup
	for i, o := range replicas {
		group.Go(func() {
			if at, err := began(ctx, o); err == nil {
				times[i] = at
			}
		})
	}
	group.Wait()
	best := 0
	for i, at := range times {
		if !at.IsZero() && (times[best].IsZero() || at.Before(times[best])) {
			best = i
		}
	}
	return replicas[best]
}

func isReady(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func authorities(ctx context.Context, c client.Client, namespace string) (*x509.CertPool, error) {
	var published corev1.ConfigMap
	if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: observerapi.Authority}, &published); err != nil {
		return nil, fmt.Errorf("read the authority of the observer's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(published.Data[observerapi.AuthorityKey])) {
		return nil, fmt.Errorf("ConfigMap %s/%s has no certificate: has the observer started?", namespace, observerapi.Authority)
	}
	return roots, nil
}

// StatusError is an answer of the observer other than 200.
type StatusError struct {
	Code int
	Text string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("observer: %d %s: %s", e.Code, http.StatusText(e.Code), e.Text)
}

// Get an answer.
func (o *Observer) Get(ctx context.Context, path string, query url.Values, into any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body, err := o.Open(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("observer: %s: %w", path, err)
	}
	return nil
}

// Open an answer, to be read as it comes. It ends with the context.
func (o *Observer) Open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	target := url.URL{Scheme: "https", Host: observerapi.Service, Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+o.token)
	response, err := o.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("observer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		defer func() { _ = response.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return nil, &StatusError{Code: response.StatusCode, Text: strings.TrimSpace(string(text))}
	}
	return response.Body, nil
}
